-- Brings the mirrored columns of these profiles up to date: e-mail and phone, never the role, never the id.
UPDATE public.user_profiles AS profile
SET email = image.after ->> 'email',
    phone = image.after ->> 'phone',
    updated_at = CAST(image.after ->> 'updated_at' AS timestamptz)
FROM jsonb_to_recordset(CAST(:images AS jsonb)) AS image (user_id uuid, after jsonb)
WHERE profile.id = image.user_id
