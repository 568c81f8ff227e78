"""Builds the package, by maturin; but says first what is missing if there is no Rust."""

import shutil
import sys

import maturin
from maturin import *  # noqa: F403


def _check() -> None:
    if shutil.which("cargo") is None:
        sys.exit(
            "raftz needs Rust to be built from its sources: install it from https://rustup.rs, open a new shell, "
            "try again; or install a wheel"
        )


def get_requires_for_build_wheel(config_settings=None):
    _check()
    return maturin.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings=None):
    _check()
    return maturin.get_requires_for_build_editable(config_settings)


def get_requires_for_build_sdist(config_settings=None):
    _check()
    return maturin.get_requires_for_build_sdist(config_settings)
