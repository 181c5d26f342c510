-- The schema auth of a Supabase project, as far as profiles touch it, and who may use what in this database.
-- May run again on a database that has it already.

GRANT ALL ON SCHEMA public TO postgres;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

CREATE SCHEMA IF NOT EXISTS auth AUTHORIZATION supabase_admin;
GRANT ALL ON SCHEMA auth TO supabase_auth_admin, dashboard_user;
GRANT USAGE ON SCHEMA auth TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_auth_admin IN SCHEMA auth
    GRANT ALL ON TABLES TO postgres, dashboard_user;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_auth_admin IN SCHEMA auth
    GRANT ALL ON SEQUENCES TO postgres, dashboard_user;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_auth_admin IN SCHEMA auth
    GRANT ALL ON FUNCTIONS TO postgres, dashboard_user;

-- Everything below is made by its owner, so that ownership and default privileges come out as they are there.
SET LOCAL ROLE supabase_auth_admin;

CREATE TABLE IF NOT EXISTS auth.users (
    instance_id                  uuid,
    id                           uuid NOT NULL CONSTRAINT users_pkey PRIMARY KEY,
    aud                          varchar(255),
    role                         varchar(255),
    email                        varchar(255),
    encrypted_password           varchar(255),
    email_confirmed_at           timestamptz,
    invited_at                   timestamptz,
    confirmation_token           varchar(255),
    confirmation_sent_at         timestamptz,
    recovery_token               varchar(255),
    recovery_sent_at             timestamptz,
    email_change_token_new       varchar(255),
    email_change                 varchar(255),
    email_change_sent_at         timestamptz,
    last_sign_in_at              timestamptz,
    raw_app_meta_data            jsonb,
    raw_user_meta_data           jsonb,
    is_super_admin               boolean,
    created_at                   timestamptz,
    updated_at                   timestamptz,
    phone                        text DEFAULT NULL CONSTRAINT users_phone_key UNIQUE,
    phone_confirmed_at           timestamptz,
    phone_change                 text DEFAULT '',
    phone_change_token           varchar(255) DEFAULT '',
    phone_change_sent_at         timestamptz,
    confirmed_at                 timestamptz GENERATED ALWAYS AS (LEAST(email_confirmed_at, phone_confirmed_at)) STORED,
    email_change_token_current   varchar(255) DEFAULT '',
    email_change_confirm_status  smallint DEFAULT 0 CONSTRAINT users_email_change_confirm_status_check
                                 CHECK (email_change_confirm_status BETWEEN 0 AND 2),
    banned_until                 timestamptz,
    reauthentication_token       varchar(255) DEFAULT '',
    reauthentication_sent_at     timestamptz,
    is_sso_user                  boolean NOT NULL DEFAULT false,
    deleted_at                   timestamptz,
    is_anonymous                 boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE auth.users IS 'Auth: Stores user login data within a secure schema.';

CREATE INDEX IF NOT EXISTS users_instance_id_idx ON auth.users (instance_id);
CREATE INDEX IF NOT EXISTS users_instance_id_email_idx ON auth.users (instance_id, lower(email::text));
CREATE INDEX IF NOT EXISTS users_is_anonymous_idx ON auth.users (is_anonymous);
CREATE UNIQUE INDEX IF NOT EXISTS users_email_partial_key ON auth.users (email) WHERE is_sso_user = false;
CREATE UNIQUE INDEX IF NOT EXISTS confirmation_token_idx ON auth.users (confirmation_token)
    WHERE confirmation_token::text !~ '^[0-9 ]*$';
CREATE UNIQUE INDEX IF NOT EXISTS recovery_token_idx ON auth.users (recovery_token)
    WHERE recovery_token::text !~ '^[0-9 ]*$';
CREATE UNIQUE INDEX IF NOT EXISTS email_change_token_current_idx ON auth.users (email_change_token_current)
    WHERE email_change_token_current::text !~ '^[0-9 ]*$';
CREATE UNIQUE INDEX IF NOT EXISTS email_change_token_new_idx ON auth.users (email_change_token_new)
    WHERE email_change_token_new::text !~ '^[0-9 ]*$';
CREATE UNIQUE INDEX IF NOT EXISTS reauthentication_token_idx ON auth.users (reauthentication_token)
    WHERE reauthentication_token::text !~ '^[0-9 ]*$';

CREATE TABLE IF NOT EXISTS auth.identities (
    provider_id      text NOT NULL,
    user_id          uuid NOT NULL CONSTRAINT identities_user_id_fkey REFERENCES auth.users (id) ON DELETE CASCADE,
    identity_data    jsonb NOT NULL,
    provider         text NOT NULL,
    last_sign_in_at  timestamptz,
    created_at       timestamptz,
    updated_at       timestamptz,
    email            text GENERATED ALWAYS AS (lower(identity_data ->> 'email')) STORED,
    id               uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT identities_pkey PRIMARY KEY,
    CONSTRAINT identities_provider_id_provider_unique UNIQUE (provider_id, provider)
);
CREATE INDEX IF NOT EXISTS identities_user_id_idx ON auth.identities (user_id);
CREATE INDEX IF NOT EXISTS identities_email_idx ON auth.identities (email text_pattern_ops);

ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.identities ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON auth.users, auth.identities TO postgres WITH GRANT OPTION;

-- What policies ask: who is calling. PostgREST puts the claims of the caller's token into a setting.

CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
CREATE OR REPLACE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$$;
CREATE OR REPLACE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
$$;

RESET ROLE;
