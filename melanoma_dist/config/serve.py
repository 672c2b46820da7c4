"""The configuration of `serve`."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from melanoma_dist.config.rules import at_least, between, check, check_url, expand_home, optional_between
from melanoma_dist.config.run import MAX_ORIENTATIONS
from melanoma_dist.errors import ConfigError
from melanoma_dist.storage.untrusted import read_text

TOKEN_VARIABLE = "MELANOMA_DIST_TOKEN"  # noqa: S105  # nosec B105  # the name of a variable, not a token
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")  # what a header and a URL can hold
_TOKEN_RULE = "must be 16 to 512 letters, digits and characters of ._~+/=-"  # noqa: S105  # nosec B105


@dataclass(frozen=True)
class ServeConfig:
    """Serve a page and an HTTP API that predict images with the ensemble of a finished run's folds.

    Answers are for research only: they are no diagnosis. No image is stored.
    """

    run: Path
    """Folder of a finished run."""
    host: str = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a token, which is made if none is set."""
    port: int = 8000
    """Port to listen on, 0 to 65535; 0 takes a free one."""
    allow_hosts: tuple[str, ...] = ()
    """More names by which browsers and programs may address the server. Those of this machine are allowed already."""
    token_file: Path | None = None
    """File with a token that every request must show. MELANOMA_DIST_TOKEN holds one too. Default: none on loopback,
    else a new one that is printed once."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) for HTTPS."""
    tls_key: Path | None = None
    """Its private key (PEM)."""
    dataset: str | None = None
    """New place of the run's own data set, if it moved after the training. It shows which images the run has seen."""
    tta: int | None = None
    """Test-time augmentation: orientations of each image to average, 1 (none) to 8 (all flips and quarter turns).
    Default: as in the run, whose calibration and operating points hold for it."""
    batch_size: Annotated[int | None, arg(aliases=("-b",))] = None
    """The most images of a batch, 1 to 65536. Default: as in the run's validation."""
    gpus: int = 0
    """GPUs to use, shared by the replicas; 0 is the CPU."""
    replicas: int = 1
    """Copies of the models that answer side by side. More than one needs the extra `serve-cluster` (Ray Serve)."""
    decode_threads: Annotated[int | None, arg(aliases=("-j",))] = None
    """Threads that decode images, and on the CPU also compute. Default: the number of CPU cores."""
    queue: int = 128
    """The most images that wait or are predicted at a time, 1 to 4096. Further ones are refused with 503."""
    timeout: float = 60.0
    """Seconds in which a request must arrive, and in which it must be answered, 1 to 3600."""
    max_files: int = 32
    """The most images of one request, 1 to 1024."""
    max_megabytes: int = 64
    """The largest request, 1 to 1024 MB."""
    max_megapixels: int = 64
    """The largest image, 1 to 64 million pixels."""
    audit: bool = True
    """Print a line of JSON per request: time, SHA-256 of each image, fingerprint of the model, outcome."""

    def __post_init__(self) -> None:
        expand_home(self, "run", "token_file", "tls_cert", "tls_key", "dataset")
        between(self, "port", 0, 65535)
        check(self, "dataset", self.dataset is None or bool(self.dataset.strip()), "is empty: name a folder or a URL")
        check_url("dataset", self.dataset)
        optional_between(self, "tta", 1, MAX_ORIENTATIONS)
        optional_between(self, "batch_size", 1, 65536)
        at_least(self, 0, "gpus")
        at_least(self, 1, "replicas", "decode_threads")
        between(self, "queue", 1, 4096)
        between(self, "timeout", 1, 3600)
        between(self, "max_files", 1, 1024)
        between(self, "max_megabytes", 1, 1024)
        between(self, "max_megapixels", 1, 64)
        rule = f"must be at most --queue ({self.queue}): a fuller request could never be answered"
        check(self, "max_files", self.max_files <= self.queue, rule)
        if self.replicas > 1 and self.tls_cert is not None:
            raise ConfigError("--tls-cert: needs --replicas 1. Put a proxy with HTTPS before several replicas.")
        if self.gpus > 1 and self.replicas < self.gpus:
            rule = f"would leave GPUs idle: {self.replicas} replicas use one each at most"
            raise ConfigError.of("gpus", self.gpus, rule, f"Add --replicas {self.gpus}.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert, --tls-key: give both, or neither.")

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def token(self) -> str | None:
        """The token that the user chose; None without one. Raises ConfigError for one that is short or odd."""
        if self.token_file is not None:
            return _checked(f"--token-file {self.token_file}", read_text(self.token_file).strip())
        chosen = os.environ.get(TOKEN_VARIABLE)
        return None if chosen is None else _checked(TOKEN_VARIABLE, chosen)


def check_files(settings: ServeConfig) -> None:
    """Raise ConfigError for a certificate, a key or a token file that does not exist, or for a bad token."""
    for name in ("tls_cert", "tls_key", "token_file"):
        path = getattr(settings, name)
        check(settings, name, path is None or path.is_file(), "there is no such file")
    try:
        settings.token()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--token-file {settings.token_file}: cannot be read ({error}).") from error


def _checked(place: str, token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"{place}: the token {_TOKEN_RULE}. Make one with `openssl rand -hex 32`.")
    return token
