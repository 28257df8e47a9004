-- The ground: who owns what, the history of migrations, and the words that other tables are made of.
--
-- qwen_owner owns everything and is used by `qwen-control migrate` only. qwen_control is what the running control plane
-- is: it reads and writes rows, and can alter no table. Roles belong to the whole cluster, so they may be there already.

DO $$
DECLARE
    is_super   bool := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
    may_create bool := (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user);
    made       bool := false;
    wanted     text;
BEGIN
    IF getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'the database is encoded as %, but UTF8 is needed', getdatabaseencoding()
            USING HINT = 'Make another: CREATE DATABASE qwen ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
    FOREACH wanted IN ARRAY ARRAY['qwen_owner', 'qwen_control'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
        IF NOT may_create THEN
            RAISE EXCEPTION 'the role % does not exist and % may not create roles', wanted, current_user
                USING HINT = 'Have an administrator run: CREATE ROLE qwen_owner NOLOGIN; CREATE ROLE qwen_control LOGIN; '
                             || format('GRANT qwen_owner TO %I; then migrate again.', current_user);
        END IF;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE %s', wanted,
                           CASE wanted WHEN 'qwen_owner' THEN 'NOLOGIN' ELSE 'LOGIN' END);
            made := true;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this cluster is being migrated at the same time
        END;
    END LOOP;

    -- From PostgreSQL 16 on, who creates a role may give it to others, but not be it.
    IF NOT is_super AND (made OR NOT pg_has_role(current_user, 'qwen_owner', 'MEMBER')) THEN
        IF NOT may_create THEN
            RAISE EXCEPTION '% is not a member of qwen_owner', current_user
                USING HINT = format('Have an administrator run: GRANT qwen_owner TO %I; then migrate again.', current_user);
        END IF;
        EXECUTE format('GRANT qwen_owner TO %I', current_user);
    END IF;
END $$;

CREATE SCHEMA qwen AUTHORIZATION qwen_owner;
SET LOCAL ROLE qwen_owner;
SET LOCAL search_path = qwen, pg_temp;
GRANT USAGE ON SCHEMA qwen TO qwen_control;
-- A function is everybody's to call unless its maker says otherwise.
ALTER DEFAULT PRIVILEGES FOR ROLE qwen_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE TABLE schema_migration (
    id         int         PRIMARY KEY CHECK (id > 0),
    name       text        NOT NULL UNIQUE,
    checksum   bytea       NOT NULL CHECK (octet_length(checksum) = 32), -- SHA-256 of the file as it was applied
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON schema_migration TO qwen_control;

-- Names of teams, users, keys, gateways and tokens: lower case, so that two never differ by case alone, and nothing that
-- would break a log line, a path or a terminal.
CREATE DOMAIN label AS text COLLATE "C"
    CHECK (VALUE ~ '^[a-z0-9_][a-z0-9._@+-]{0,127}$');
-- Names of models, as engines write them: HOST/NAMESPACE/MODEL:TAG.
CREATE DOMAIN model_name AS text COLLATE "C"
    CHECK (VALUE ~ '^[A-Za-z0-9_][A-Za-z0-9._:/-]{0,255}$');
-- What people write for people: one line.
CREATE DOMAIN remark AS text
    CHECK (char_length(VALUE) <= 1000 AND VALUE !~ '[\x01-\x1f\x7f\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]');
-- The SHA-256 of a secret. (Named like the function, it would make sha256('…') a cast.)
CREATE DOMAIN digest AS bytea CHECK (octet_length(VALUE) = 32);
