"""Which packages hold the guest's kernel: distributions cut it into ever more of them."""

import pytest

from lab import ingredients

DEBIAN_13 = {
    "linux-image-cloud-amd64": ["linux-image-6.12.57+deb13-cloud-amd64"],
    "linux-image-6.12.57+deb13-cloud-amd64": ["kmod", "linux-base", "initramfs-tools"],
}
DEBIAN_TESTING = {
    "linux-image-cloud-amd64": ["linux-image-7.2.12+deb14-cloud-amd64"],
    "linux-image-7.2.12+deb14-cloud-amd64": [
        "linux-base",
        "linux-base-7.2.12+deb14-cloud-amd64",
        "linux-binary-7.2.12+deb14-cloud-amd64",
        "linux-modules-7.2.12+deb14-cloud-amd64",
    ],
}
UBUNTU = {
    "linux-image-virtual": ["linux-image-6.8.0-48-generic", "linux-firmware"],
    "linux-image-6.8.0-48-generic": ["kmod", "linux-modules-6.8.0-48-generic"],
}


@pytest.mark.parametrize(
    ("release", "parts"),
    [
        (DEBIAN_13, {"linux-image-6.12.57+deb13-cloud-amd64"}),
        (
            DEBIAN_TESTING,
            {
                f"linux-{part}-7.2.12+deb14-cloud-amd64"
                for part in ("image", "base", "binary", "modules")
            },
        ),
        (UBUNTU, {"linux-image-6.8.0-48-generic", "linux-modules-6.8.0-48-generic"}),
    ],
)
def test_all_parts_of_a_kernel_are_found(monkeypatch, release, parts):
    def apt_cache(*argv):
        return "".join(f"  Depends: {name}\n" for name in release.get(argv[-1], []))

    monkeypatch.setattr(ingredients, "run", apt_cache)
    assert set(ingredients._kernel_packages()) == parts


@pytest.mark.parametrize("place", ["boot/vmlinuz-7.2", "usr/lib/modules/7.2/vmlinuz"])
def test_the_kernel_is_found_where_the_packages_put_it(tmp_path, place):
    kernel = tmp_path / place
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    assert ingredients._kernel(tmp_path) == kernel
