-- Removes the profiles side. Sign-ups go on without it. The switch (0002_profiles_side.off.sql) is pulled first, in a
-- transaction of its own, so that no sign-up waits for a table that waits for the sign-up.
--
-- public.user_profiles stays, with its policies and grants, when it holds anything that this pipeline did not make:
-- a row inserted by an application (source = 'manual'), or a row that was changed after it was made.

DROP FUNCTION IF EXISTS public.profile_undo(uuid, integer, uuid);
DROP FUNCTION IF EXISTS public.profile_backfill(integer, uuid, uuid);
DROP FUNCTION IF EXISTS public.profile_sync_report();

DO $$
BEGIN
    IF to_regclass('public.user_profiles') IS NOT NULL THEN
        -- Nobody adds or changes a profile between the look and the removal.
        LOCK TABLE public.user_profiles IN SHARE ROW EXCLUSIVE MODE;
        IF EXISTS (SELECT FROM public.user_profiles WHERE source = 'manual' OR updated_at > created_at) THEN
            RAISE NOTICE 'public.user_profiles stays: it holds rows that were made or changed by others';
            RETURN;
        END IF;
        DROP TABLE public.user_profiles;
    END IF;
    DROP FUNCTION IF EXISTS app_private.set_updated_at();
END
$$;

-- CASCADE takes the trigger on auth.users along, which only the owner of that table could drop by name.
DROP FUNCTION IF EXISTS app_private.handle_new_auth_user() CASCADE;
DROP FUNCTION IF EXISTS app_private.create_profiles_severally(uuid[], uuid, text);
DROP FUNCTION IF EXISTS app_private.create_profiles(uuid[], uuid, text);
DROP TABLE IF EXISTS app_private.profile_failures;
DO $$
BEGIN
    DROP SCHEMA app_private;
EXCEPTION WHEN dependent_objects_still_exist THEN
    RAISE NOTICE 'The schema app_private stays: it is still in use';
END
$$;
