"""Schedules: what runs by the clock, in UTC as the days of the axis are.

What belongs here: times, and the days they ask for. What does not: following changes as they come (`sensors.py`).
"""

from datetime import UTC, date, timedelta

import dagster as dg

from user_sync_pipeline.core.recent_changes import Days, days_behind
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.ledger import ReadSoFar, read_so_far
from user_sync_pipeline.jobs import reconcile_profiles, user_sync
from user_sync_pipeline.partitions import first_day, range_tags
from user_sync_pipeline.resources import PostgresResource

# The axis already holds the day that has just begun, so that the last minutes of yesterday are in the second but last.
DAYS_READ_DAILY = 3

DAILY_RECENT = f"""
Launches `user_sync` every night for the last {DAYS_READ_DAILY} days, or for more when more have not been read: all
days after an outage, everything the first time.
"""
WEEKLY_FULL = """
Launches `user_sync` over **all days**, every Sunday: it also brings what moves no `SystemModstamp`, such as formula
fields and sign-ins. Reads all users; switch it on where Salesforce's quota allows that.
"""
HOURLY_PROFILES = "Launches `reconcile_profiles` every hour, for people who signed up without a profile."


def days_to_read_daily(read: ReadSoFar | None, today: date, horizon: date) -> Days:
    """Return the last days, from the watermark on if it lies further back, and all days when nothing has been read."""
    if read is None:
        return Days(horizon, today)
    last_days = today - timedelta(days=DAYS_READ_DAILY - 1)
    return Days(max(min(last_days, days_behind(read.watermark, today, horizon).first), horizon), today)


def build_schedules(partitions: dg.DailyPartitionsDefinition, *, running: bool) -> list[dg.ScheduleDefinition]:
    """Return the schedules on the given axis; the weekly one never runs unless somebody switches it on."""
    horizon = first_day(partitions)
    status = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job=user_sync,
        cron_schedule="15 1 * * *",
        execution_timezone="UTC",
        default_status=status,
        description=DAILY_RECENT,
    )
    def daily_recent_schedule(context: dg.ScheduleEvaluationContext, postgres: PostgresResource) -> dg.RunRequest:
        with database_errors(), postgres.engine.connect() as connection:
            days = days_to_read_daily(read_so_far(connection), _day_of(context), horizon)
        return dg.RunRequest(tags=range_tags(days.first, days.last))

    @dg.schedule(job=user_sync, cron_schedule="30 3 * * 0", execution_timezone="UTC", description=WEEKLY_FULL)
    def weekly_full_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(tags=range_tags(horizon, _day_of(context)))

    hourly_profiles_schedule = dg.ScheduleDefinition(
        name="hourly_profiles_schedule",
        job=reconcile_profiles,
        cron_schedule="45 * * * *",
        execution_timezone="UTC",
        default_status=status,
        description=HOURLY_PROFILES,
    )
    return [daily_recent_schedule, weekly_full_schedule, hourly_profiles_schedule]


def _day_of(context: dg.ScheduleEvaluationContext) -> date:
    """Return the day on which the schedule was to run, also when it runs late."""
    return context.scheduled_execution_time.astimezone(UTC).date()
