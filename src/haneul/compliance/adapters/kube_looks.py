"""Looks as ConfigMaps beside the masters that they are about; they go with the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from haneul.compliance.model import Look
from haneul.kernel.kube import CONFIG_MAPS, KubeApiError, KubeClient, Manifest

_FILE: Final = "look.json"


class KubeLooks:
    """Looks in ConfigMaps of one name; the platform's API may read exactly that name."""

    def __init__(self, client: KubeClient, name: str) -> None:
        self._client = client
        self._name = name

    async def write(self, namespace: str, labels: Mapping[str, str], look: Look) -> None:
        """Apply the ConfigMap."""
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": namespace, "labels": dict(labels)},
            "data": {_FILE: look.model_dump_json(by_alias=True)},
        }
        await self._client.apply(CONFIG_MAPS, manifest)

    async def read(self, namespace: str) -> Look | None:
        """Return the look; one of another release, which cannot be read, is none."""
        try:
            found = await self._client.get(CONFIG_MAPS, self._name, namespace)
        except KubeApiError as error:
            # The right to read it comes with the cluster's masters.
            if error.status == 403:
                return None
            raise
        try:
            return None if found is None else Look.model_validate_json(found["data"][_FILE])
        except ValidationError:
            return None
