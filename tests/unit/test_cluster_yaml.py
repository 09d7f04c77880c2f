"""cluster.yaml against Ray's own schema and the launcher's own preparation."""

import ipaddress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PROJECT = Path(__file__).parents[2]
DOCUMENTATION_RANGE = ipaddress.ip_network("192.0.2.0/24")  # RFC 5737


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
    return loaded


def test_ray_accepts_the_file_and_starts_every_listed_worker(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    workers = len(config["provider"]["worker_ips"])
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == workers == 2


def test_ray_would_refuse_a_misspelt_field(config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config({**config, "setup_comands": []}))


def test_addresses_are_placeholders(config: dict[str, Any]) -> None:
    addresses = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    assert all(ipaddress.ip_address(address) in DOCUMENTATION_RANGE for address in addresses)
    assert len(set(addresses)) == len(addresses)


def test_the_dashboard_stays_on_the_loopback_and_every_start_asks_for_the_token(
    config: dict[str, Any],
) -> None:
    head, worker = (config[f"{role}_start_ray_commands"][-1] for role in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1 " in head
    assert head.startswith("RAY_AUTH_MODE=token ")
    assert worker.startswith("RAY_AUTH_MODE=token ")


def test_machines_are_set_up_in_the_folder_that_is_copied_to_them(config: dict[str, Any]) -> None:
    (folder,) = [there for there, here in config["file_mounts"].items() if here == "."]
    assert config["setup_commands"] == [f"cd {folder} && python3 bootstrap.py setup"]
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all(f"{folder}/.venv/bin/ray " in command for command in starts)
