//! What is asked of an upstream about its definitions.

/// One query of [`CATALOG_QUERIES`].
#[derive(Debug, Clone, Copy)]
pub struct CatalogQuery {
    /// What it is for.
    pub name: &'static str,
    /// Its text: one statement, without parameters.
    pub sql: &'static str,
    /// How many columns each row has.
    pub columns: usize,
    /// How many rows are believed; more are an error.
    pub rows_max: usize,
}

/// How many rows of a kind a catalog may have before it is refused.
const ROWS_MAX: usize = 4_000_000;

/// The first statement of a connection that looks at a catalog: no function of somebody's can then stand in for one of
/// PostgreSQL's own, and what the search path is without it can still be told.
pub const CATALOG_SETUP: &str = "SET search_path = pg_catalog";

/// The queries that fill a [`Catalog`]. They are run in this order over one connection to the database itself, in one
/// `REPEATABLE READ, READ ONLY` transaction, and their rows are handed to [`Catalog::from_rows`]. The connection begins with
/// [`CATALOG_SETUP`], and must not ask for a search path when it starts: the server's own could not be seen behind that.
pub const CATALOG_QUERIES: &[CatalogQuery] = &[
    CatalogQuery {
        name: "server",
        sql: "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_database(), s.reset_val, s.source, \
              CURRENT_USER FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'",
        columns: 5,
        rows_max: 1,
    },
    CatalogQuery {
        name: "path",
        sql: "SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)",
        columns: 1,
        rows_max: 1,
    },
    CatalogQuery {
        name: "schemas",
        sql: "SELECT n.nspname, r.rolname, n.nspacl IS NOT NULL AND EXISTS (SELECT 1 FROM aclexplode(n.nspacl) a \
              WHERE a.grantee = 0 AND a.privilege_type = 'USAGE') \
              FROM pg_namespace n LEFT JOIN pg_roles r ON r.oid = n.nspowner \
              WHERE n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "superusers",
        sql: "SELECT rolname FROM pg_roles WHERE rolsuper",
        columns: 1,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "settings",
        sql: "SELECT s.setdatabase <> 0, r.rolname, substr(c.setting, length('search_path=') + 1) \
              FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting) \
              LEFT JOIN pg_roles r ON r.oid = s.setrole \
              WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
              AND (s.setrole = 0 OR r.rolname IS NOT NULL) AND starts_with(c.setting, 'search_path=')",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "relations",
        sql: "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relrowsecurity OR c.relam NOT IN (0, 2) AND c.relkind IN ('r', 'p', 'm'), \
              c.relhastriggers AND EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), \
              (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = c.oid AND c.relkind IN ('i', 'I')), \
              CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END \
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
              WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'",
        columns: 8,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "columns",
        sql: "SELECT a.attrelid, a.attname, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
              WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped \
              ORDER BY a.attrelid, a.attnum",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "types",
        sql: "SELECT t.oid, n.nspname, t.typname, t.typtype, t.typelem, t.typbasetype, coalesce(r.rngsubtype, 0) \
              FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
              LEFT JOIN pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid) \
              WHERE (t.typrelid = 0 OR EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c')) \
              AND NOT EXISTS (SELECT 1 FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid AND e.typrelid <> 0)",
        columns: 7,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "builtins",
        sql: "SELECT DISTINCT p.proname FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid < 16384",
        columns: 1,
        rows_max: 100_000,
    },
    CatalogQuery {
        name: "functions",
        sql: "SELECT n.nspname, p.proname, p.provolatile, l.lanname, p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1, \
              EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'), \
              array_to_string(p.proargtypes, ' ') \
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang \
              WHERE p.oid >= 16384 OR l.lanname NOT IN ('internal', 'c', 'sql')",
        columns: 7,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "operators",
        sql: "SELECT n.nspname, o.oprname, o.oprleft, o.oprright, f.nspname, p.proname, \
              p.provolatile = 'i' AND l.lanname IN ('internal', 'c') AND \
              (p.oid < 16384 OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')) \
              FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace JOIN pg_proc p ON p.oid = o.oprcode \
              JOIN pg_namespace f ON f.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang WHERE o.oid >= 16384",
        columns: 7,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "casts",
        sql: "SELECT c.castsource, c.casttarget, c.castcontext, f.nspname, p.proname, \
              coalesce(p.provolatile = 'i' AND l.lanname IN ('internal', 'c') AND \
              (p.oid < 16384 OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')), true) \
              FROM pg_cast c LEFT JOIN pg_proc p ON p.oid = c.castfunc LEFT JOIN pg_namespace f ON f.oid = p.pronamespace \
              LEFT JOIN pg_language l ON l.oid = p.prolang WHERE c.oid >= 16384",
        columns: 6,
        rows_max: ROWS_MAX,
    },
    // What making a value of a domain runs.
    CatalogQuery {
        name: "checks",
        sql: "SELECT c.contypid, pg_get_expr(c.conbin, 0) FROM pg_constraint c WHERE c.contypid >= 16384 AND c.contype = 'c' \
              UNION ALL SELECT t.oid, pg_get_expr(t.typdefaultbin, 0) FROM pg_type t WHERE t.oid >= 16384 AND t.typdefaultbin IS NOT NULL",
        columns: 2,
        rows_max: ROWS_MAX,
    },
    // The row types of relations with their arrays, and the types in them that somebody added.
    CatalogQuery {
        name: "rows",
        sql: "SELECT t.oid, t.typarray, coalesce(a.atttypid, 0) FROM pg_class c JOIN pg_type t ON t.oid = c.reltype \
              LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384 \
              WHERE t.oid >= 16384 AND c.relpersistence <> 't'",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    // What writing to a relation runs, and whether reading it does.
    CatalogQuery {
        name: "expressions",
        sql: "SELECT d.adrelid, false, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid WHERE c.relpersistence <> 't' \
              UNION ALL SELECT k.conrelid, false, pg_get_expr(k.conbin, k.conrelid) FROM pg_constraint k \
              JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c' AND c.relpersistence <> 't' \
              UNION ALL SELECT p.polrelid, true, concat_ws(', ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) \
              FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relrowsecurity AND coalesce(p.polqual, p.polwithcheck) IS NOT NULL",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "numbers",
        sql: "SELECT p.oid, n.nspname, p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace",
        columns: 3,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "children",
        sql: "SELECT i.inhrelid, i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind IN ('r', 'p', 'f')",
        columns: 2,
        rows_max: ROWS_MAX,
    },
    CatalogQuery {
        name: "rules",
        sql: "SELECT w.ev_class, pg_get_ruledef(w.oid) FROM pg_rewrite w WHERE w.ev_type <> '1' AND w.oid >= 16384",
        columns: 2,
        rows_max: ROWS_MAX,
    },
    // Generated columns with what they are computed from (the dependency is the column's own before PostgreSQL 15), and columns that
    // reference others.
    CatalogQuery {
        name: "copies",
        sql: "SELECT a.attrelid, a.attname, a.attrelid, s.attname, true FROM pg_attribute a \
              JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum \
              JOIN pg_depend d ON (d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
              OR d.classid = 'pg_class'::regclass AND d.objid = a.attrelid AND d.objsubid = a.attnum) \
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid NOT IN (0, a.attnum) \
              JOIN pg_attribute s ON s.attrelid = d.refobjid AND s.attnum = d.refobjsubid WHERE a.attgenerated <> '' \
              UNION SELECT k.conrelid, c.attname, k.confrelid, r.attname, false FROM pg_constraint k \
              CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS u(own, other) \
              JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = u.own \
              JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = u.other WHERE k.contype = 'f'",
        columns: 5,
        rows_max: ROWS_MAX,
    },
    // What differs whenever a relation came to be called or made up otherwise, or functions of one name to be others, and also where that was
    // taken back: renaming and moving touch the row's type as well, which TRUNCATE does not.
    CatalogQuery {
        name: "versions",
        sql: "SELECT c.oid::text, hashtextextended(concat_ws(' ', c.relname, c.relnamespace, c.relkind, c.relrowsecurity, \
              coalesce(t.xmin, c.xmin), \
              (SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0), \
              (SELECT string_agg(w.xmin::text, ',' ORDER BY w.oid) FROM pg_rewrite w WHERE w.ev_class = c.oid)), 0) \
              FROM pg_class c LEFT JOIN pg_type t ON t.oid = c.reltype \
              WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND c.oid >= 16384 \
              UNION ALL SELECT concat(n.nspname, '.', p.proname), hashtextextended(string_agg(concat(p.oid, ':', p.xmin), ',' ORDER BY p.oid), 0) \
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384 GROUP BY 1",
        columns: 2,
        rows_max: ROWS_MAX,
    },
];

/// One row of one column that differs whenever something that [`CATALOG_QUERIES`] read may have changed: each committed
/// change of a definition leaves a row version of its own. Temporary tables are passed over.
pub const FINGERPRINT_QUERY: &str = "\
SELECT pg_catalog.concat_ws(' ', \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(pg_catalog.hashint8(c.xmin::text::int8 * 65536 + (c.oid::int8 % 65536))::int8), 0) FROM pg_catalog.pg_class c WHERE c.relpersistence <> 't' AND c.relkind <> 't'), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(a.xmin::text::int8 * (a.attnum + 10000)), 0) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND a.attrelid >= 16384 AND c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(pg_catalog.hashint8(p.xmin::text::int8 * 65536 + (p.oid::int8 % 65536))::int8), 0) FROM pg_catalog.pg_proc p), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(pg_catalog.hashint8(t.xmin::text::int8 * 65536 + (t.oid::int8 % 65536))::int8), 0) FROM pg_catalog.pg_type t WHERE t.typrelid = 0 AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typrelid <> 0)), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(pg_catalog.hashint8(w.xmin::text::int8 * 65536 + (w.oid::int8 % 65536))::int8), 0) FROM pg_catalog.pg_rewrite w), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(n.xmin::text::int8 * (n.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(o.xmin::text::int8 * (o.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_operator o), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(k.xmin::text::int8 * (k.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_cast k), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(i.xmin::text::int8 * (i.inhrelid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_inherits i), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(d.xmin::text::int8 * (d.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_constraint d WHERE d.contypid <> 0 OR d.contype = 'f'), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(g.xmin::text::int8 * (g.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_trigger g WHERE NOT g.tgisinternal), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(l.xmin::text::int8 * (l.oid::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_policy l), \
(SELECT pg_catalog.count(*) || '/' || coalesce(pg_catalog.sum(s.xmin::text::int8 * (s.setrole::int8 % 65536 + 1)), 0) FROM pg_catalog.pg_db_role_setting s), \
(SELECT pg_catalog.string_agg(r.rolname, ',' ORDER BY r.rolname) FROM pg_catalog.pg_roles r WHERE r.rolsuper))";
