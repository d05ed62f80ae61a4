"""The images that clusters are made from, by the names under which the components product builds them."""

from __future__ import annotations

from haneul.components.table import image_reference
from haneul.dkos.control_plane import Images


def cluster_images() -> Images:
    """Return the references of all images that masters and nodes run."""
    return Images(
        etcd=image_reference("etcd"),
        apiserver=image_reference("kube-apiserver"),
        controller_manager=image_reference("kube-controller-manager"),
        scheduler=image_reference("kube-scheduler"),
        toolbox=image_reference("toolbox"),
        node=image_reference("node"),
        cilium=image_reference("cilium"),
    )
