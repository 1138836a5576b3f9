"""An authority of a test's own, and the certificates it issues, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate for ``localhost`` and 127.0.0.1, and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """``file`` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "authority.pem"
        self._key = folder / "authority.key"
        _openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-noenc",
                "-days",
                "2",
                "-subj",
                "/CN=authority of a test",
            ),
            *("-keyout", str(self._key), "-out", str(self.file)),
        )

    def issue(self, name: str, password: str = "") -> Issued:
        """Its subject is ``CN=name``; the key is encrypted where there is a ``password`` (PKCS 8)."""
        certificate, key, request = (self._folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        locked = ("-passout", f"pass:{password}") if password else ("-noenc",)
        _openssl(
            "req",
            "-newkey",
            "rsa:2048",
            *locked,
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(key),
            "-out",
            str(request),
        )
        extensions = self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        _openssl(
            *(
                "x509",
                "-req",
                "-in",
                str(request),
                "-CA",
                str(self.file),
                "-CAkey",
                str(self._key),
                "-days",
                "2",
            ),
            *("-extfile", str(extensions), "-out", str(certificate)),
        )
        return Issued(certificate, key)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
