"""Secrets are written and said nowhere, and files are as private as their user has them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from small_studies import sweep_values

from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.mirror import Mirror
from routing.files.results_folder import ENVIRONMENT_FILE
from routing.files.secrets import error_without_secrets, without_secrets
from routing.files.tensors import save_tensors
from search_spaces.ledger.folder import write_environment
from search_spaces.ledger.ledger import Ledger
from search_spaces.study.load import parse_study


def test_the_environment_file_holds_chosen_names_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hunter2-very-secret"
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "HF_TOKEN", "PASSWORD", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    storage = f"postgresql://someone:{secret}@db.example/studies?sslpassword={secret}"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/routing", "sweep", "digits", "--storage", storage])
    write_environment(tmp_path, parse_study(sweep_values()), 2, 3)
    text = (tmp_path / ENVIRONMENT_FILE).read_text()
    assert secret not in text
    assert set(json.loads(text)) == {
        "versions", "platform", "cpu_count", "cpu", "device", "threads", "concurrency", "seed", "command",
        "git_commit", "started",
    }  # fmt: skip
    assert json.loads(text)["command"][-1] == "postgresql://someone:***@db.example/studies?sslpassword=***"
    with pytest.raises(InputError) as raised:
        Ledger(f"postgresql://someone:{secret}@127.0.0.1:1/none", "small", parse_study(sweep_values()).objectives)
    assert secret not in str(raised.value)


@pytest.mark.parametrize("text", ["--model.router.mode", "sqlite:///a/b.db", "model.monkey=4", "10.0.0.1:6379", "a@b"])
def test_words_without_a_secret_stay(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SE/CR@ET@bucket/x", "s3://KEY:***@bucket/x"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("abfs://c@a/x?sig=SECRET&y=1", "abfs://c@a/x?sig=***&y=1"),
        ("secret_key=SECRET", "secret_key=***"),
        ("access_key=SECRET account_key=SECRET", "access_key=*** account_key=***"),
        ("u?api_key=SECRET&pwd=SECRET", "u?api_key=***&pwd=***"),
        ("u?X-Amz-Signature=SECRET", "u?X-Amz-Signature=***"),
        ("design=2", "design=2"),
    ],
)
def test_secrets_are_struck_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_library_that_quotes_a_secret_in_pieces_is_not_repeated() -> None:
    url = "nosuch://KEY:SE/CR:ET@bucket/x"
    error = ValueError("Port could not be cast to integer value as 'SE', nor CR of bucket")
    assert error_without_secrets(error, url) == "Port could not be cast to integer value as '***', nor *** of bucket"
    with pytest.raises(InputError) as refused:
        Mirror("s3://KEY:TOPSECRET/z@bucket/x")
    assert "TOPSECRET" not in str(refused.value)


def test_files_are_as_private_as_the_user_says(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "text", "x")
        save_tensors(tmp_path / "tensors", {"x": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
