import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from user_sync_pipeline.core import failure_notices
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.failure_notices import FailureNotice
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.resources.failures import errors_as_failures
from user_sync_pipeline.sensors import WILL_RETRY_TAG, build_failure_sensor
from user_sync_pipeline_tests.orchestration.conftest import Company

SECRET_PATH = "/hooks/secret-of-the-webhook"


class Receiver:
    """A webhook on a real port: what was posted to it, and the status that it answers with."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.paths: list[str] = []
        self.status = 200
        self.seconds = 0.0
        self._patience = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver._patience.wait(receiver.seconds)
                receiver.texts.append(json.loads(body)["text"])
                receiver.paths.append(self.path)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{SECRET_PATH}?token=secret"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._patience.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv("USER_SYNC_FAILURE_WEBHOOK_URL", receiver.url)
    yield receiver
    receiver.stop()


class Sensor:
    """The failure sensor on an instance, which it follows from its making on."""

    def __init__(self, instance: dg.DagsterInstance, sensor: dg.SensorDefinition | None = None) -> None:
        self._instance = instance
        self._sensor = sensor or build_definitions().resolve_sensor_def("failure_sensor")
        self._cursor: str | None = None
        self.errors: list[str | None] = []
        self.tick()

    def tick(self) -> None:
        """Tick until everything that happened has been looked at."""
        while True:
            before = self._cursor
            with dg.build_sensor_context(instance=self._instance, cursor=self._cursor) as context:
                result = self._sensor.evaluate_tick(context)
            self.errors += [reaction.error.message for reaction in result.dagster_run_reactions if reaction.error]
            self._cursor = result.cursor
            if self._cursor == before:
                return


def failing_job(error: Exception) -> dg.JobDefinition:
    @dg.op
    def read(context: dg.OpExecutionContext) -> None:
        with errors_as_failures(context):
            raise error

    @dg.job(executor_def=dg.in_process_executor)
    def some_job() -> None:
        read()

    return some_job


def fail(instance: dg.DagsterInstance, error: Exception, **tags: str) -> str:
    return failing_job(error).execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


@pytest.mark.slow
def test_a_failed_run_is_told_once_with_its_sentence(company: Company, webhook: Receiver) -> None:
    sensor = Sensor(company.instance)
    company.salesforce.connected_app.client_secret = "another one"
    run_id = company.run().run_id
    for _ in range(3):
        sensor.tick()
    [told] = webhook.texts
    assert told.startswith(f"The run {run_id} of user_sync of {company.horizon}...{company.today} failed in ")
    assert "SALESFORCE_CLIENT_SECRET" in told
    assert webhook.paths == [f"{SECRET_PATH}?token=secret"]


@pytest.mark.slow
def test_a_check_that_stops_a_run_is_told_with_its_sentence(instance: dg.DagsterInstance, webhook: Receiver) -> None:
    @dg.asset
    def users() -> None:
        pass

    @dg.asset_check(asset=users, blocking=True)
    def harmless() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="Never mind.")

    @dg.asset_check(asset=users, blocking=True)
    def harmful() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="Everything would be erased.")

    sensor = Sensor(instance)
    definitions = dg.Definitions([users], asset_checks=[harmless, harmful])
    job = definitions.resolve_implicit_global_asset_job_def()
    run_id = job.execute_in_process(instance=instance, raise_on_error=False).run_id
    sensor.tick()
    [told] = webhook.texts
    assert told.startswith(f"The run {run_id} of ")
    assert told.endswith(" failed in users_harmful: harmful: Everything would be erased.")


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_step_is_told_with_its_sentence(
    company: Company, webhook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor(company.instance)
    monkeypatch.delenv("SALESFORCE_CLIENT_SECRET")
    company.run()
    sensor.tick()
    [told] = webhook.texts
    assert "failed: SALESFORCE_CLIENT_SECRET is not set" in told


@pytest.mark.slow
def test_of_the_attempts_of_a_run_only_the_last_is_told(instance: dg.DagsterInstance, webhook: Receiver) -> None:
    sensor = Sensor(instance)
    fail(instance, ConfigurationError("The first attempt."), **{WILL_RETRY_TAG: "true"})
    fail(instance, ConfigurationError("The last attempt."), **{WILL_RETRY_TAG: "false"})
    sensor.tick()
    assert [text.partition(": ")[2] for text in webhook.texts] == ["The last attempt."]


@pytest.mark.slow
def test_a_paused_run_and_a_good_one_are_not_told(company: Company, webhook: Receiver) -> None:
    sensor = Sensor(company.instance)
    company.salesforce.org.set_daily_limit(3)
    assert company.status_of(company.run()) is dg.DagsterRunStatus.CANCELED
    company.salesforce.org.set_daily_limit(1000)
    assert company.run().success
    sensor.tick()
    assert webhook.texts == []


@pytest.mark.slow
def test_of_a_foreign_error_only_the_class_is_told(instance: dg.DagsterInstance, webhook: Receiver) -> None:
    sensor = Sensor(instance)
    fail(instance, KeyError("postgresql://user:password@host anna@example.com"))
    sensor.tick()
    [told] = webhook.texts
    assert told.endswith("failed in read: KeyError; the log of the run says more.")


@pytest.mark.slow
def test_an_address_in_a_sentence_is_taken_out(instance: dg.DagsterInstance, webhook: Receiver) -> None:
    sensor = Sensor(instance)
    fail(instance, ConfigurationError("Not postgresql://user:password@host\nnor anna@example.com."))
    sensor.tick()
    [told] = webhook.texts
    assert told.endswith("failed in read: Not (an address) nor (an address)")


@pytest.mark.slow
def test_a_webhook_that_refuses_or_is_gone_stops_nothing_and_its_address_is_not_logged(
    instance: dg.DagsterInstance,
    webhook: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sensor = Sensor(instance)
    webhook.status = 500
    fail(instance, ConfigurationError("First."))
    sensor.tick()
    webhook.seconds = 5
    monkeypatch.setattr(failure_notices, "TIMEOUT", 0.2)
    fail(instance, ConfigurationError("Second."))
    sensor.tick()
    webhook.stop()
    fail(instance, ConfigurationError("Third."))
    sensor.tick()
    assert sensor.errors == []
    logged = capfd.readouterr()
    everything = logged.out + logged.err
    for said in ("answered with status 500", "did not answer", "cannot be reached", "First.", "Second.", "Third."):
        assert said in everything
    assert "secret" not in everything


def test_a_wrong_webhook_address_is_said_in_the_log_and_stops_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sensor = Sensor(instance)
    monkeypatch.setenv("USER_SYNC_FAILURE_WEBHOOK_URL", "http://example.com/secret")
    fail(instance, ConfigurationError("It failed."))
    sensor.tick()
    assert sensor.errors == []
    assert "USER_SYNC_FAILURE_WEBHOOK_URL is not an https:// address" in capfd.readouterr().err


def test_another_notifier_can_be_plugged_in(instance: dg.DagsterInstance) -> None:
    notices: list[FailureNotice] = []
    sensor = Sensor(instance, build_failure_sensor(dg.DefaultSensorStatus.STOPPED, notifier=notices.append))
    run_id = fail(instance, ConfigurationError("It failed."))
    sensor.tick()
    assert notices == [FailureNotice("some_job", run_id, days=None, step="read", reason="It failed.")]
