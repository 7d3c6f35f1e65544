"""Where things are: one workspace folder and the few addresses around it, from the environment (SEATRIAL_*)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.times import Clock, SetClock, SystemClock, parse_time


class Settings(BaseSettings):
    """Settings of one workspace; every field is an environment variable with the prefix SEATRIAL_.

    `clock`: a fixed "now" (ISO 8601 with zone) for rehearsals; empty means the machine's clock. `online_url`: a Redis
    (redis://host:port/db) for the online features; empty means the embedded store in the workspace.

    `environment`: the name of one of the targets in the file `environments` (dev, staging, prod), empty for none.
    `access`: `open` (whoever can reach the workspace may do everything; loopback only) or `required`. `key`: the API
    key or token that the command line acts with. `jwt_issuer`, `jwt_audience`, `jwks`: whose tokens are taken, for
    whom they must be, and where the issuer's keys are (a file, or an https address). `events`: the file that says where
    events go. `anchors`: the file outside the ledger that keeps its newest hashes; empty means inside the workspace.
    """

    model_config = SettingsConfigDict(env_prefix="SEATRIAL_", frozen=True, extra="ignore")

    home: Path = Path(".seatrial")
    policies: Path = Path("policies")
    features: Path = Path("features/repo")
    ledger_url: str = ""
    tracking_uri: str = ""
    online_url: str = ""
    clock: str = ""
    actor: str = "seatrial"
    environment: str = ""
    environments: Path = Path("environments.yaml")
    access: Literal["open", "required"] = "open"
    key: SecretStr = SecretStr("")
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwks: str = ""
    events: Path = Path("events.yaml")
    anchors: str = ""

    @property
    def lake(self) -> Path:
        """Landing, quarantine and gold."""
        return self.home / "lake"

    @property
    def online(self) -> Path:
        """The embedded online store."""
        return self.home / "online"

    @property
    def artifacts(self) -> Path:
        """Sealed model artifacts, one folder a version."""
        return self.home / "artifacts"

    @property
    def serving(self) -> Path:
        """Serving snapshots, one file a model."""
        return self.home / "serving"

    @property
    def decisions(self) -> Path:
        """Decision, shadow and outcome log segments."""
        return self.home / "decisions"

    @property
    def reports(self) -> Path:
        """Reports for people."""
        return self.home / "reports"

    @property
    def access_file(self) -> Path:
        """Who may do what: the keys' hashes, projected from the ledger."""
        return self.home / "access.json"

    @property
    def anchor_file(self) -> Path:
        """Where the newest hash of every ledger chain is kept, outside the ledger."""
        return Path(self.anchors) if self.anchors else self.home / "anchors.jsonl"

    @property
    def ledger(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite:///{(self.home / 'ledger.db').absolute()}"

    @property
    def tracking(self) -> str:
        """MLflow tracking and registry URI."""
        return self.tracking_uri or f"sqlite:///{(self.home / 'mlflow.db').absolute()}"

    def make_clock(self) -> Clock:
        """The clock that these settings name."""
        return SetClock(parse_time(self.clock, "SEATRIAL_CLOCK")) if self.clock else SystemClock()
