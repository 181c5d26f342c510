-- Which tables of the profiles side this role can really read. Row level security that applies to the role would
-- show it an empty table in place of an error.
SELECT namespace.nspname || '.' || relation.relname
FROM pg_catalog.pg_class AS relation
JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE (namespace.nspname, relation.relname) IN (('auth', 'users'), ('public', 'user_profiles'))
  AND has_schema_privilege(namespace.oid, 'USAGE')
  AND has_table_privilege(relation.oid, 'SELECT')
  AND NOT row_security_active(relation.oid)
