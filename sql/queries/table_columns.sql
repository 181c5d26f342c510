-- The columns of the two tables of users as they are now.
SELECT
    namespace.nspname || '.' || relation.relname AS relation,
    attribute.attname AS name,
    format_type(attribute.atttypid, attribute.atttypmod) AS type
FROM pg_catalog.pg_attribute AS attribute
JOIN pg_catalog.pg_class AS relation ON relation.oid = attribute.attrelid
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE attribute.attrelid IN (to_regclass('user_sync.salesforce_users_raw'), to_regclass('public.sf_users'))
  AND attribute.attnum > 0
  AND NOT attribute.attisdropped
