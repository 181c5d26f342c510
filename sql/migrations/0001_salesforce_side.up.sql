-- The Salesforce side: landing, the table of users, and the ledger of runs.
-- Runs on PostgreSQL 15 to 18, with or without the roles of Supabase.

CREATE SCHEMA IF NOT EXISTS user_sync;
REVOKE ALL ON SCHEMA user_sync FROM PUBLIC;
COMMENT ON SCHEMA user_sync IS 'Private working area of user_sync_pipeline: landing, ledger, rejects, findings.';

-- One row a run: who asked for what, and what came of it. ---------------------------------------------------

CREATE TABLE user_sync.sync_runs (
    run_id           uuid PRIMARY KEY,
    org_id           text NOT NULL,
    mode             text NOT NULL CHECK (mode IN ('full', 'recent', 'custom')),
    since            timestamptz,               -- NULL: open to the past
    until            timestamptz NOT NULL,      -- excluded
    read_until       timestamptz,               -- how far Salesforce was really read
    covered_until    timestamptz,               -- how far Salesforce vouches that nothing is still to come
    held_reason      text,                      -- why covered_until lies before read_until
    row_limit        bigint CHECK (row_limit > 0),
    selected_fields  text[] NOT NULL,           -- as Salesforce spells them
    fetched_columns  text[] NOT NULL,           -- a column that is missing here was hidden from us, or vanished meanwhile
    lost_fields      text[] NOT NULL DEFAULT '{}',  -- selected, and hidden or removed while the run was reading
    outcome          text NOT NULL DEFAULT 'running'
                     CHECK (outcome IN ('running', 'landed', 'complete', 'failed', 'paused')),
    fetched          bigint NOT NULL DEFAULT 0,
    inserted         bigint NOT NULL DEFAULT 0,
    updated          bigint NOT NULL DEFAULT 0,
    unchanged        bigint NOT NULL DEFAULT 0,
    rejected         bigint NOT NULL DEFAULT 0,
    api_calls        integer NOT NULL DEFAULT 0,
    certificate      jsonb,                     -- what was read, in figures that anybody can compare with the tables
    started_by       text NOT NULL,
    started_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    resumed          integer NOT NULL DEFAULT 0,  -- how often it was continued after it had broken off
    landed_at        timestamptz,               -- when all of its rows were there
    finished_at      timestamptz
);
CREATE INDEX sync_runs_started_at_idx ON user_sync.sync_runs (started_at DESC);

-- Up to here everything that Salesforce holds has been read, once per organisation. --------------------------

CREATE TABLE user_sync.watermarks (
    org_id       text PRIMARY KEY,
    watermark    timestamptz NOT NULL,
    held_reason  text,
    run_id       uuid NOT NULL REFERENCES user_sync.sync_runs (run_id),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where an unfinished run stands, one row a slice of its window; written in the transaction that stores the batch.
-- The rows of a run are its plan as well: a slice without a position has not begun. They go when the run has landed.

CREATE TABLE user_sync.checkpoints (
    run_id           uuid NOT NULL REFERENCES user_sync.sync_runs (run_id) ON DELETE CASCADE,
    slice            integer NOT NULL,
    since            timestamptz,               -- NULL: open to the past
    until            timestamptz NOT NULL,      -- excluded
    counted_rows     bigint NOT NULL,           -- how many Salesforce held when the slice was planned
    system_modstamp  timestamptz,               -- behind this row the slice is read on
    id               text,
    landed_rows      bigint NOT NULL DEFAULT 0,
    settled_rows     bigint NOT NULL DEFAULT 0, -- of these, up to that row: they are not read again after a break
    finished         boolean NOT NULL DEFAULT false,
    written_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, slice)
);

-- Rows that could not be stored, and values that were cleaned on the way. No value is kept, only its place. ---

CREATE TABLE user_sync.rejected_records (
    rejected_record_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id              uuid NOT NULL REFERENCES user_sync.sync_runs (run_id) ON DELETE CASCADE,
    salesforce_id       text,
    field               text NOT NULL,
    reason              text NOT NULL,
    row_stored          boolean NOT NULL,       -- true: the value was cleaned, the row is there
    noted_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX rejected_records_run_id_idx ON user_sync.rejected_records (run_id);

-- What Salesforce answered, as it was fetched. Several versions of one user may lie here. --------------------
-- sync_run_id is no foreign key, here and in sf_users: a check a row is dear, and runs may be forgotten earlier.

CREATE TABLE user_sync.salesforce_users_raw (
    id                         text NOT NULL,
    username                   text,
    name                       text,
    first_name                 text,
    last_name                  text,
    email                      text,
    alias                      text,
    community_nickname         text,
    title                      text,
    department                 text,
    division                   text,
    company_name               text,
    employee_number            text,
    phone                      text,
    mobile_phone               text,
    fax                        text,
    extension                  text,
    address                    jsonb,
    is_active                  boolean,
    user_type                  text,
    profile_id                 text,
    user_role_id               text,
    manager_id                 text,
    time_zone_sid_key          text,
    locale_sid_key             text,
    language_locale_key        text,
    email_encoding_key         text,
    federation_identifier      text,
    external_id                text,
    last_login_date            timestamptz,
    last_password_change_date  timestamptz,
    created_date               timestamptz,
    created_by_id              text,
    last_modified_date         timestamptz,
    last_modified_by_id        text,
    system_modstamp            timestamptz NOT NULL,
    custom_fields              jsonb,
    sync_run_id                uuid NOT NULL,
    landed_at                  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX salesforce_users_raw_system_modstamp_idx ON user_sync.salesforce_users_raw (system_modstamp);
COMMENT ON TABLE user_sync.salesforce_users_raw IS 'Users as Salesforce answered, one row per fetched version.';

-- One current row a user. ------------------------------------------------------------------------------------

CREATE TABLE public.sf_users (
    id                         text CONSTRAINT sf_users_pkey PRIMARY KEY
                               CONSTRAINT sf_users_id_has_18_characters CHECK (id ~ '^[A-Za-z0-9]{15}[A-Z0-5]{3}$'),
    username                   text NOT NULL,
    name                       text,
    first_name                 text,
    last_name                  text,
    email                      text,
    alias                      text,
    community_nickname         text,
    title                      text,
    department                 text,
    division                   text,
    company_name               text,
    employee_number            text,
    phone                      text,
    mobile_phone               text,
    fax                        text,
    extension                  text,
    address                    jsonb CONSTRAINT sf_users_address_is_an_object CHECK (jsonb_typeof(address) = 'object'),
    is_active                  boolean NOT NULL,
    user_type                  text,
    profile_id                 text,
    user_role_id               text,
    manager_id                 text,
    time_zone_sid_key          text,
    locale_sid_key             text,
    language_locale_key        text,
    email_encoding_key         text,
    federation_identifier      text,
    external_id                text,
    last_login_date            timestamptz,
    last_password_change_date  timestamptz,
    created_date               timestamptz NOT NULL,
    created_by_id              text,
    last_modified_date         timestamptz,
    last_modified_by_id        text,
    system_modstamp            timestamptz NOT NULL,
    custom_fields              jsonb CONSTRAINT sf_users_custom_fields_is_an_object
                               CHECK (jsonb_typeof(custom_fields) = 'object'),
    first_seen_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    synced_at                  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deactivated_at             timestamptz,
    sync_run_id                uuid NOT NULL
);
-- Username and e-mail are not unique here: users swap them within one batch, and Salesforce allows shared e-mails.
CREATE INDEX sf_users_system_modstamp_idx ON public.sf_users (system_modstamp);
CREATE INDEX sf_users_lower_email_idx ON public.sf_users (lower(email));
CREATE INDEX sf_users_external_id_idx ON public.sf_users (external_id) WHERE external_id IS NOT NULL;
CREATE INDEX sf_users_is_active_idx ON public.sf_users (is_active) WHERE NOT is_active;
COMMENT ON TABLE public.sf_users IS 'One current row per Salesforce user; the newest SystemModstamp wins.';
COMMENT ON COLUMN public.sf_users.external_id IS 'External_ID__c';
COMMENT ON COLUMN public.sf_users.custom_fields IS 'The fields named in SALESFORCE_EXTRA_FIELDS.';
COMMENT ON COLUMN public.sf_users.deactivated_at IS 'When this pipeline first saw the user inactive; cleared on return.';

-- Findings of the last reconciliation: ids and reasons, never an e-mail. --------------------------------------

CREATE TABLE user_sync.profile_reconciliation (
    finding             text NOT NULL,
    auth_user_id        uuid,
    salesforce_user_id  text,
    reason              text NOT NULL,
    found_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX profile_reconciliation_finding_idx ON user_sync.profile_reconciliation (finding);

-- Whom the last reconciliation found to be the same person, and by what. A link that stays keeps its moment. -----

CREATE TABLE user_sync.profile_links (
    auth_user_id        uuid PRIMARY KEY,
    salesforce_user_id  text NOT NULL,
    linked_by           text NOT NULL CHECK (linked_by IN ('External_ID__c', 'verified e-mail')),
    linked_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX profile_links_salesforce_user_id_idx ON user_sync.profile_links (salesforce_user_id);

-- The ledger of profile syncs: one row for each that was not a dry run. ---------------------------------------

CREATE TABLE user_sync.profile_runs (
    run_id           uuid PRIMARY KEY,
    started_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at      timestamptz,
    started_by       text NOT NULL,
    door             text CHECK (door IN ('sql', 'rpc', 'api')),  -- NULL for a single profile
    outcome          text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'complete', 'failed')),
    created          bigint NOT NULL DEFAULT 0,
    refreshed        bigint NOT NULL DEFAULT 0,
    vanished         bigint NOT NULL DEFAULT 0,
    failed           bigint NOT NULL DEFAULT 0,
    undone_at        timestamptz,               -- when it was undone last
    removed          bigint NOT NULL DEFAULT 0, -- by undoing it
    restored         bigint NOT NULL DEFAULT 0  -- by undoing it
);
CREATE INDEX profile_runs_started_at_idx ON user_sync.profile_runs (started_at DESC);

-- What a refreshed profile held before the run, and what the run made of it; written before the profile is. -----

CREATE TABLE user_sync.profile_images (
    run_id    uuid NOT NULL REFERENCES user_sync.profile_runs (run_id) ON DELETE CASCADE,
    user_id   uuid NOT NULL,
    before    jsonb NOT NULL,
    after     jsonb NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, user_id)
);
COMMENT ON TABLE user_sync.profile_images IS 'E-mail and phone of refreshed profiles, for undoing a run; personal data.';

-- Personal data: row level security without a policy, and no grant to any role of an API. --------------------
-- Explicit in both directions, because old projects grant everything by default and new ones nothing.

ALTER TABLE public.sf_users ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_sync.profile_images ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON public.sf_users FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA user_sync FROM PUBLIC;
DO $$
DECLARE
    api_role text;
BEGIN
    FOR api_role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
        EXECUTE format('REVOKE ALL ON public.sf_users FROM %I', api_role);
        EXECUTE format('REVOKE ALL ON SCHEMA user_sync FROM %I', api_role);
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA user_sync FROM %I', api_role);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA user_sync FROM %I', api_role);
    END LOOP;
END
$$;
