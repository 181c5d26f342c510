-- Who can sign in (directory_accounts, a temporary table) against who is in Salesforce: what a person should look at,
-- and the links that were made (linked).
--
-- A link needs a reason: External_ID__c equal to the id of the auth user, or else the same verified e-mail where
-- nobody else has it on either side. A tie is reported, never decided. Ids and reasons only, no e-mail.
WITH
-- By External_ID__c; two Salesforce users that name the same auth user are a tie.
named AS (
    SELECT
        account.auth_user_id,
        person.id AS salesforce_user_id,
        count(*) OVER (PARTITION BY account.auth_user_id) AS named_by
    FROM public.sf_users AS person
    JOIN directory_accounts AS account ON account.auth_user_id = lower(btrim(person.external_id))
    WHERE account.is_in_scope
),

salesforce_user AS (
    SELECT
        person.id AS salesforce_user_id,
        person.is_active,
        nullif(lower(btrim(person.email)), '') AS email,
        coalesce(named.named_by, 0) AS named_by
    FROM public.sf_users AS person
    LEFT JOIN named ON named.salesforce_user_id = person.id
),
account AS (
    SELECT directory_accounts.*, named.auth_user_id IS NOT NULL AS is_named
    FROM directory_accounts
    LEFT JOIN (SELECT DISTINCT auth_user_id FROM named) AS named USING (auth_user_id)
    WHERE is_in_scope
),

-- By e-mail, where on both sides somebody is left whom no External_ID__c joins.
shared_email AS (
    SELECT email, people, accounts
    FROM (
        SELECT email, count(*) AS people FROM salesforce_user GROUP BY email HAVING bool_or(named_by = 0)
    ) AS salesforce_side
    JOIN (
        SELECT email, count(*) AS accounts FROM account GROUP BY email HAVING bool_or(NOT is_named)
    ) AS auth_side USING (email)
),
open_account AS (
    SELECT account.auth_user_id, account.is_verified, shared_email.*
    FROM account
    JOIN shared_email USING (email)
    WHERE NOT account.is_named
),
open_salesforce_user AS (
    SELECT salesforce_user.salesforce_user_id, shared_email.*
    FROM salesforce_user
    JOIN shared_email USING (email)
    WHERE salesforce_user.named_by = 0
),

link AS (
    SELECT auth_user_id, salesforce_user_id, 'External_ID__c' AS linked_by FROM named WHERE named_by = 1
    UNION ALL
    SELECT open_account.auth_user_id, open_salesforce_user.salesforce_user_id, 'verified e-mail'
    FROM open_account
    JOIN open_salesforce_user USING (email)
    WHERE open_account.is_verified AND open_account.people = 1 AND open_account.accounts = 1
)

SELECT
    'missing_profile' AS finding,
    account.auth_user_id,
    link.salesforce_user_id,
    'The auth user has no profile.' AS reason
FROM account
LEFT JOIN link USING (auth_user_id)
WHERE NOT account.has_profile

UNION ALL
SELECT 'orphan_profile', auth_user_id, NULL, 'No auth user in scope belongs to the profile.'
FROM directory_accounts
WHERE has_profile AND NOT is_in_scope

UNION ALL
SELECT
    'stale_email',
    account.auth_user_id,
    link.salesforce_user_id,
    'The profile holds another e-mail than the auth user.'
FROM account
LEFT JOIN link USING (auth_user_id)
WHERE account.has_stale_email

UNION ALL
SELECT
    'inactive_in_salesforce_can_sign_in',
    account.auth_user_id,
    salesforce_user_id,
    'Inactive in Salesforce, linked by ' || link.linked_by || '.'
FROM link
JOIN account USING (auth_user_id)
JOIN salesforce_user USING (salesforce_user_id)
WHERE NOT salesforce_user.is_active AND account.can_sign_in

UNION ALL
SELECT
    'active_in_salesforce_without_sign_in',
    account.auth_user_id,
    salesforce_user_id,
    CASE
        WHEN account.auth_user_id IS NOT NULL
            THEN 'Active in Salesforce, but the auth user linked by ' || link.linked_by || ' is banned.'
        WHEN open_salesforce_user.email IS NOT NULL
            THEN 'Active in Salesforce; the auth user with the same e-mail has not confirmed it.'
        ELSE 'Active in Salesforce, and no auth user is linked.'
    END
FROM salesforce_user
LEFT JOIN link USING (salesforce_user_id)
LEFT JOIN account USING (auth_user_id)
LEFT JOIN open_salesforce_user USING (salesforce_user_id)
WHERE salesforce_user.is_active
  AND account.can_sign_in IS NOT TRUE
  -- Whoever is part of a tie may well be able to sign in.
  AND coalesce(greatest(open_salesforce_user.people, open_salesforce_user.accounts), 1) = 1
  AND salesforce_user.named_by <= 1

UNION ALL
SELECT
    'ambiguous_email',
    auth_user_id,
    NULL,
    'Its e-mail belongs to ' || people || ' Salesforce and ' || accounts || ' auth users, so no link was made.'
FROM open_account
WHERE greatest(people, accounts) > 1

UNION ALL
SELECT
    'ambiguous_email',
    NULL,
    salesforce_user_id,
    'Its e-mail belongs to ' || people || ' Salesforce and ' || accounts || ' auth users, so no link was made.'
FROM open_salesforce_user
WHERE greatest(people, accounts) > 1

UNION ALL
SELECT
    'ambiguous_external_id',
    auth_user_id,
    salesforce_user_id,
    'The External_ID__c of ' || named_by || ' Salesforce users names this auth user, so no link was made.'
FROM named
WHERE named_by > 1

UNION ALL
SELECT 'linked', auth_user_id, salesforce_user_id, linked_by
FROM link
