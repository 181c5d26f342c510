-- Gives refreshed profiles their former e-mail and phone back, where they still hold what the refresh made of them.
-- The moment of the last change goes back as well, unless something else was changed since. Answers who they are.
UPDATE public.user_profiles AS profile
SET email = image.before ->> 'email',
    phone = image.before ->> 'phone',
    updated_at = CASE
        WHEN profile.updated_at = CAST(image.after ->> 'updated_at' AS timestamptz)
            THEN CAST(image.before ->> 'updated_at' AS timestamptz)
        ELSE now()
    END
FROM jsonb_to_recordset(CAST(:images AS jsonb)) AS image (user_id uuid, before jsonb, after jsonb)
WHERE profile.id = image.user_id
  AND (profile.email, profile.phone) IS NOT DISTINCT FROM (image.after ->> 'email', image.after ->> 'phone')
RETURNING profile.id
