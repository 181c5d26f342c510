-- Removes the profiles side. Sign-ups go on without it.
--
-- public.user_profiles stays, with its policies and grants, when it holds anything that this pipeline did not make:
-- a row inserted by an application (source = 'manual'), or a row that was changed after it was made.

DROP FUNCTION IF EXISTS public.profile_backfill(integer, uuid);
DROP FUNCTION IF EXISTS public.profile_sync_report();

-- Nobody adds or changes a profile between the look and the removal.
LOCK TABLE public.user_profiles IN SHARE ROW EXCLUSIVE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM public.user_profiles WHERE source = 'manual' OR updated_at > created_at) THEN
        RAISE NOTICE 'public.user_profiles stays: it holds rows that were made or changed by others';
    ELSE
        DROP TABLE public.user_profiles;
        DROP FUNCTION app_private.set_updated_at();
    END IF;
END
$$;

-- CASCADE takes the trigger on auth.users along, which only the owner of that table could drop by name.
DROP FUNCTION IF EXISTS app_private.handle_new_auth_user() CASCADE;
DROP FUNCTION IF EXISTS app_private.create_profiles(uuid[]);
DROP FUNCTION IF EXISTS app_private.metadata_text(jsonb, text, integer);
DROP TABLE IF EXISTS app_private.profile_failures;
DO $$
BEGIN
    DROP SCHEMA app_private;
EXCEPTION WHEN dependent_objects_still_exist THEN
    RAISE NOTICE 'The schema app_private stays: it is still in use';
END
$$;
