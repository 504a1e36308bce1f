"""What a site may set for its images, and stages in them where there is no network at all."""

import base64
import hashlib
import http.server
import json
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.images.conftest import Machine, Tiny

WITHOUT_NETWORK = ("unshare", "--user", "--map-current-user", "--net")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An index with one package, by certificates of its own; its address and the package's lock."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    folder = tmp_path / "simple" / "of-this-site"
    folder.mkdir(parents=True)
    wheel = folder / "of_this_site-1.0-py3-none-any.whl"
    about = "of_this_site-1.0.dist-info"
    parts = {
        "of_this_site.py": "",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: of-this-site\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_hash(text)},{len(text)}" for name, text in parts.items()]
    parts[f"{about}/RECORD"] = "\n".join([*record, f"{about}/RECORD,,"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    names = "subjectAltName=DNS:localhost"
    certify = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    certify += ["-subj", "/CN=site", "-addext", names, "-keyout", "site.key", "-out", "site.crt"]
    subprocess.run(certify, cwd=tmp_path, check=True, capture_output=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "site.crt", tmp_path / "site.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    pin = f"of-this-site==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    yield f"https://localhost:{server.server_port}/simple", pin
    server.shutdown()
    thread.join()
    server.server_close()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_packages_come_from_the_index_of_a_site_by_its_certificates(
    tiny: Tiny, index: tuple[str, str], tmp_path: Path
) -> None:
    address, pin = index
    bundle = tiny.folder / "site.crt"
    shutil.copy(tmp_path / "site.crt", bundle)
    command = tiny.ensure("wheels", lock=tiny.lock + pin, package_index=address, ca_bundle=bundle)
    options = json.loads(command[-1])
    untrusted = json.dumps({**options, "ca_bundle": None})
    said = tiny.machine.run(*command[:-1], untrusted, status=1).stderr
    assert "a proxy inspects TLS here: set images.ca_bundle" in said
    assert tiny.images == []
    tiny.machine.run(*command)
    (made,) = tiny.images
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["packages"]["of-this-site"] == "1.0"


def test_a_finished_image_is_used_where_there_is_no_network(
    machine: Machine, base: Path, tmp_path: Path
) -> None:
    folder = machine.make_folder(tmp_path.name)
    ready = folder / "site.sif"
    shutil.copy(base / "image.sif", ready)
    machine.give(ready)
    config = {
        "study": "ready",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": {"dataset": "digits"}},
        "variants": {"torch-eager": {"framework": "torch", "mode": "eager"}},
        "paths": {name: str(folder / name) for name in ("results", "data")},
        "images": {"enabled": True, "ready": {"base": str(ready)}},
    }
    code = """if True:
        import json, sys
        from lockstep.study import Study, config
        study = Study(config.complete(json.loads(sys.argv[1])))
        study.write()
        print(json.dumps([str(study.path), str(study.images["base"].folder)]))
    """
    said = machine.run(machine.python, "-c", code, json.dumps(config)).stdout
    study, image = json.loads(said)
    lockstep = (machine.python, "-m", "lockstep")
    machine.run(*lockstep, "image", "--study", study, "--name", "base")
    assert (Path(image) / "image.sif").readlink() == ready
    made = json.loads((base / "manifest.json").read_text())
    manifest = json.loads((Path(image) / "manifest.json").read_text())
    same = ("python", "packages", "debian")
    assert {key: manifest[key] for key in same} == {key: made[key] for key in same}
    assert manifest["sif"]["sha256"] == made["sif"]["sha256"]
    alone = machine.run(*WITHOUT_NETWORK, "cat", "/proc/net/dev").stdout
    assert [line.split(":")[0].strip() for line in alone.splitlines()[2:]] == ["lo"]
    machine.run(*WITHOUT_NETWORK, *lockstep, "preprocess", "--study", study, "--dataset", "digits")
    assert list((folder / "data" / "datasets").glob("digits-*/manifest.json"))
