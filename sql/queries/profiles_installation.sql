-- What the catalogue knows of the profiles side, one row an object: what `user-sync migrate verify` judges.
-- Needs no rights on the objects themselves.
WITH
account AS (
    SELECT pg_class.oid
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE (nspname, relname) = ('auth', 'users')
),

relation AS (
    SELECT pg_class.*, nspname || '.' || relname AS name
    FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE (nspname, relname) IN (('public', 'user_profiles'), ('app_private', 'profile_failures'))
),

-- Found by name, whatever their arguments: a function of ours has no namesake.
routine AS (
    SELECT pg_proc.*, nspname || '.' || proname AS name
    FROM pg_catalog.pg_proc
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
    WHERE nspname || '.' || proname = ANY (:functions)
),

-- PUBLIC, and whoever the API lets in. An empty list of rights stands for the defaults.
granted AS (
    SELECT name AS object, NULL AS part, (aclexplode(coalesce(relacl, acldefault('r', relowner)))).* FROM relation
    UNION ALL
    SELECT relation.name, attname, (aclexplode(attacl)).*
    FROM relation
    JOIN pg_catalog.pg_attribute ON attrelid = relation.oid AND NOT attisdropped
    UNION ALL
    SELECT name, NULL, (aclexplode(coalesce(proacl, acldefault('f', proowner)))).* FROM routine
    UNION ALL
    SELECT nspname, NULL, (aclexplode(coalesce(nspacl, acldefault('n', nspowner)))).*
    FROM pg_catalog.pg_namespace
    WHERE nspname = 'app_private'
)

-- The place of sign-ups, without which nothing here makes sense.
SELECT 'sign-ups' AS kind, 'auth.users' AS name, '{}' AS facts
FROM account

UNION ALL
SELECT 'schema', nspname, jsonb_build_object('owner', pg_get_userbyid(nspowner))
FROM pg_catalog.pg_namespace
WHERE nspname = 'app_private'

UNION ALL
SELECT 'table', name, jsonb_build_object(
    'owner', pg_get_userbyid(relowner),
    'row_security', relrowsecurity,
    'comment', obj_description(oid, 'pg_class')
)
FROM relation
WHERE relkind IN ('r', 'p')

UNION ALL
SELECT 'column', relation.name || '.' || attname, jsonb_build_object(
    'type', format_type(atttypid, NULL),
    'required', attnotnull,
    'default', pg_get_expr(adbin, adrelid),
    'computed', attgenerated <> '' OR attidentity <> ''
)
FROM relation
JOIN pg_catalog.pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum

UNION ALL
SELECT 'check', relation.name || '.' || conname, jsonb_build_object('definition', pg_get_constraintdef(pg_constraint.oid))
FROM relation
JOIN pg_catalog.pg_constraint ON conrelid = relation.oid AND contype = 'c'

UNION ALL
SELECT 'key', relation.name || '.' || conname, jsonb_build_object(
    'table', relation.name,
    'primary', contype = 'p',
    'columns', (SELECT jsonb_agg(attname) FROM pg_catalog.pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey))
)
FROM relation
JOIN pg_catalog.pg_constraint ON conrelid = relation.oid AND contype IN ('p', 'u')

-- Checked at the end of a transaction, when the function of the trigger can no longer catch a failure. A trigger that
-- is switched off checks nothing.
UNION ALL
SELECT 'deferred', conname, jsonb_build_object('foreign_key', contype = 'f', 'trigger', contype = 't')
FROM relation
JOIN pg_catalog.pg_constraint ON conrelid = relation.oid AND condeferred
WHERE contype <> 't' OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgconstraint = pg_constraint.oid AND tgenabled <> 'D')

-- All of the database: whoever else points at a user decides whether that user can be deleted.
UNION ALL
SELECT 'reference', nspname || '.' || relname || '.' || conname, jsonb_build_object(
    'table', nspname || '.' || relname,
    'columns', (SELECT jsonb_agg(attname) FROM pg_catalog.pg_attribute WHERE attrelid = conrelid AND attnum = ANY (conkey)),
    'on_delete', confdeltype,
    'validated', convalidated
)
FROM pg_catalog.pg_constraint
JOIN pg_catalog.pg_class ON pg_class.oid = conrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE contype = 'f' AND confrelid IN (SELECT oid FROM account) AND conparentid = 0

UNION ALL
SELECT 'policy', relation.name || '.' || polname, jsonb_build_object(
    'command', polcmd,
    'roles', CAST(CAST(polroles AS regrole[]) AS text),
    'using', pg_get_expr(polqual, polrelid),
    'check', pg_get_expr(polwithcheck, polrelid)
)
FROM relation
JOIN pg_catalog.pg_policy ON polrelid = relation.oid

UNION ALL
SELECT 'trigger', tgname, jsonb_build_object(
    'table', nspname || '.' || relname,
    'function', (
        SELECT nspname || '.' || proname
        FROM pg_catalog.pg_proc
        JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
        WHERE pg_proc.oid = tgfoid
    ),
    'enabled', tgenabled IN ('O', 'A'),
    -- bits: 1 for each row, 2 before, 4 insert, 8 delete, 16 update
    'kind', tgtype,
    'conditional', tgqual IS NOT NULL
)
FROM pg_catalog.pg_trigger
JOIN pg_catalog.pg_class ON pg_class.oid = tgrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE NOT tgisinternal
  AND tgrelid IN (SELECT oid FROM account UNION SELECT oid FROM relation WHERE relation.name = 'public.user_profiles')

UNION ALL
SELECT 'function', name, jsonb_build_object(
    'arguments', pg_get_function_identity_arguments(routine.oid),
    'owner', pg_get_userbyid(proowner),
    'body', prosrc,
    'language', lanname,
    'volatility', provolatile,
    'security_definer', prosecdef,
    'settings', coalesce(to_jsonb(proconfig), '[]'),
    'may_write', NOT EXISTS (SELECT FROM relation WHERE NOT has_table_privilege(proowner, relation.oid, 'INSERT'))
)
FROM routine
JOIN pg_catalog.pg_language ON pg_language.oid = prolang

UNION ALL
SELECT 'grant', object, jsonb_build_object(
    'to', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END,
    'right', privilege_type || coalesce(' (' || part || ')', '')
)
FROM granted
WHERE grantee = 0 OR pg_get_userbyid(grantee) IN ('anon', 'authenticated', 'service_role')
ORDER BY kind, name
