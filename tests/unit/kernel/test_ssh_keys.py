"""Keys for SSH: what is made, what is taken, what is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from haneul.kernel.errors import InvalidInputError
from haneul.kernel.ssh_keys import new_ssh_key, ssh_key_from


def test_made_key_reads_back_as_itself() -> None:
    made = new_ssh_key("shop")
    assert made.public.startswith("ssh-ed25519 ") and made.public.endswith(" haneul-shop")
    assert ssh_key_from(made.private, "shop").public == made.public
    assert "PRIVATE" not in repr(made)


def _rsa(bits: int, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return rsa.generate_private_key(65537, bits).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_key_in_pem_is_taken() -> None:
    assert ssh_key_from(_rsa(3072), "shop").public.startswith("ssh-rsa ")


@pytest.mark.parametrize("wrong", [b"", b"ssh-ed25519 AAAA me", _rsa(2048), _rsa(3072, b"secret")])
def test_what_is_no_good_key_is_refused_with_a_hint(wrong: bytes) -> None:
    with pytest.raises(InvalidInputError) as refused:
        ssh_key_from(wrong, "shop")
    assert "ssh-keygen" in refused.value.hint
