-- Removes what is noted of profiles that are no more (directory_accounts, a temporary table): who goes leaves no address.
DELETE FROM user_sync.profile_images AS image
WHERE NOT EXISTS (
    SELECT FROM directory_accounts AS account
    WHERE account.has_profile AND account.auth_user_id = CAST(image.user_id AS text)
)
