"""A leaf certificate with its key in files: kept while it is good, made anew when it is not.

It is good for its names, of its authority, while at least a third of its life is left, and while nobody but its owner
may read the key. Whoever is killed at any instant leaves either that, or what the next one makes anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from haneul.kernel.files import NotPrivateError, read_plain, read_private, write_atomically
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf

_END: Final = "-----END CERTIFICATE-----\n"
_PRIVATE: Final = 0o600


@dataclass(frozen=True)
class LeafFiles:
    """Where a certificate and its key lie, PEM; both in one file if the two are the same.

    ``owner`` is a user and a group by their numbers, who may have put anything there. With ``chained`` the authority's
    certificate follows.
    """

    certificate: Path
    key: Path
    owner: tuple[int, int] | None = None
    chained: bool = False

    def ensure(
        self, authority: KeyPair, profile: LeafProfile, *, now: datetime, life: timedelta
    ) -> tuple[KeyPair, bool]:
        """Return the certificate with its key, and whether it was made just now.

        Raises OSError if it cannot be written, as where a folder has its name.
        """
        kept = self._kept()
        if kept is not None and self._is_good(kept, authority, profile, now):
            return kept, False
        leaf = issue_leaf(authority, profile, now=now, life=life)
        chain = leaf.certificate + authority.certificate if self.chained else leaf.certificate
        if self.certificate == self.key:
            write_atomically(self.key, chain + leaf.key, mode=_PRIVATE, owner=self.owner)
        else:
            # In between a crash leaves a pair that does not fit, so the old certificate goes first.
            self.certificate.unlink(missing_ok=True)
            write_atomically(self.key, leaf.key, mode=_PRIVATE, owner=self.owner)
            write_atomically(self.certificate, chain, owner=self.owner)
        return KeyPair(chain, leaf.key), True

    def _kept(self) -> KeyPair | None:
        try:
            key = read_private(self.key, follow=False)
            chain = key if self.certificate == self.key else read_plain(self.certificate).decode()
        except (OSError, NotPrivateError, UnicodeDecodeError):
            return None
        certificates, end, rest = chain.rpartition(_END)
        key = rest if self.certificate == self.key else key
        return KeyPair((certificates + end).encode(), key.lstrip().encode())

    def _is_good(self, kept: KeyPair, authority: KeyPair, profile: LeafProfile, now: datetime) -> bool:
        try:
            chain = x509.load_pem_x509_certificates(kept.certificate)
            issuer = x509.load_pem_x509_certificate(authority.certificate)
            chain[0].verify_directly_issued_by(issuer)
            named = _names(chain[0]) == (set(profile.dns_names), set(profile.addresses))
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return named and chain[1:] == [issuer] * self.chained and not kept.needs_renewal(now)


def _names(leaf: x509.Certificate) -> tuple[set[str], set[str]]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName)), set(map(str, names.get_values_for_type(x509.IPAddress)))
