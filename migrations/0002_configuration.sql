-- What gateways go by: teams, users, keys, whitelists, models, backends, settings; and the log of its changes.

-- One row. A change updates it first and holds it until it commits, so that versions are in the order of commits.
CREATE TABLE config_head (
    one     bool   PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL CHECK (version >= 0)
);
INSERT INTO config_head (version) VALUES (0);

CREATE FUNCTION config_head_goes_up() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    IF NEW.version IS DISTINCT FROM OLD.version + 1 THEN
        RAISE EXCEPTION 'the version of the configuration goes from % to %, not to %', OLD.version, OLD.version + 1, NEW.version
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER goes_up BEFORE UPDATE ON config_head FOR EACH ROW EXECUTE FUNCTION config_head_goes_up();
GRANT SELECT, UPDATE (version) ON config_head TO qwen_control;

-- What changed with which version, in the words of the link. body NULL: it is gone.
CREATE TABLE change_log (
    version bigint      NOT NULL CHECK (version > 0),
    seq     int         NOT NULL CHECK (seq >= 0),
    kind    text        NOT NULL CHECK (kind ~ '^[a-z_]{1,32}$'),
    id      text        NOT NULL CHECK (id <> '' AND char_length(id) <= 512),
    body    jsonb       CHECK (jsonb_typeof(body) = 'object'),
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (version, seq)
);
GRANT SELECT, INSERT (version, seq, kind, id, body) ON change_log TO qwen_control;

-- A row belongs to the version that its own transaction has taken: else it would change what gateways already have.
-- (A version taken within a savepoint does not count.)
CREATE FUNCTION change_log_is_of_this_version() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    own bigint := (SELECT version FROM config_head WHERE xmin = pg_current_xact_id()::xid);
BEGIN
    IF EXISTS (SELECT FROM fresh WHERE version IS DISTINCT FROM own) THEN
        RAISE EXCEPTION 'a change is logged with a version that its transaction has not taken'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER is_of_this_version AFTER INSERT ON change_log REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION change_log_is_of_this_version();

-- The only way in which changes go: the oldest, and never the last 100,000 versions.
CREATE FUNCTION change_log_prune(keep bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = qwen, pg_temp AS $$
    WITH gone AS (
        DELETE FROM change_log
        WHERE version <= (SELECT version FROM config_head) - GREATEST(keep, 100000)
        RETURNING 1)
    SELECT count(*) FROM gone
$$;
GRANT EXECUTE ON FUNCTION change_log_prune TO qwen_control;

-- An object's own version, by which a lost update is seen: whoever changes it cannot forget to raise it.
CREATE FUNCTION version_goes_up() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TABLE team (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name       label       NOT NULL,
    note       remark      NOT NULL DEFAULT '',
    version    int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX team_name_key ON team (name) WHERE deleted_at IS NULL;
CREATE TRIGGER version_goes_up BEFORE UPDATE ON team FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, UPDATE (name, note, version, deleted_at) ON team TO qwen_control;

CREATE TABLE app_user (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name       label       NOT NULL,
    team_id    uuid        REFERENCES team (id),
    weight     int         NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    class      text        NOT NULL DEFAULT 'interactive' CHECK (class IN ('interactive', 'batch')),
    disabled   bool        NOT NULL DEFAULT false,
    note       remark      NOT NULL DEFAULT '',
    version    int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX app_user_name_key ON app_user (name) WHERE deleted_at IS NULL;
CREATE INDEX app_user_team_id ON app_user (team_id);
CREATE TRIGGER version_goes_up BEFORE UPDATE ON app_user FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, UPDATE (name, team_id, weight, class, disabled, note, version, deleted_at) ON app_user TO qwen_control;

-- A secret is never here: its SHA-256, and the part of it that is public, if it has one (`prefix`).
CREATE TABLE api_key (
    id             uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id        uuid         NOT NULL REFERENCES app_user (id),
    name           label        NOT NULL,
    hash           digest       NOT NULL UNIQUE,
    prefix         text         COLLATE "C" CHECK (prefix ~ '^[0-9A-Za-z]{4,16}$'),
    state          text         NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    expires_at     timestamptz,
    models         model_name[] CHECK (cardinality(models) BETWEEN 1 AND 1000 AND array_position(models, NULL) IS NULL),
    rpm            int          CHECK (rpm BETWEEN 1 AND 1000000),
    max_concurrent int          CHECK (max_concurrent BETWEEN 1 AND 1000000),
    allow          cidr[]       CHECK (cardinality(allow) BETWEEN 1 AND 1000 AND array_position(allow, NULL) IS NULL),
    delegate       bool         NOT NULL DEFAULT false,
    replaced_by    uuid         REFERENCES api_key (id) CHECK (replaced_by <> id),
    note           remark       NOT NULL DEFAULT '',
    version        int          NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at     timestamptz  NOT NULL DEFAULT now(),
    updated_at     timestamptz  NOT NULL DEFAULT now(),
    revoked_at     timestamptz,
    last_used_at   timestamptz,
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
);
CREATE UNIQUE INDEX api_key_user_id_name_key ON api_key (user_id, name) WHERE state = 'active';
CREATE INDEX api_key_user_id ON api_key (user_id);
CREATE INDEX api_key_created_at ON api_key (created_at, id);
CREATE INDEX api_key_expires_at ON api_key (expires_at) WHERE state = 'active' AND expires_at IS NOT NULL;
CREATE INDEX api_key_replaced_by ON api_key (replaced_by) WHERE replaced_by IS NOT NULL;

-- Shared with admin_token: what was revoked never comes back, and a secret is never exchanged under a name.
CREATE FUNCTION revoked_for_good() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION '% was revoked for good', OLD.name USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.hash <> OLD.hash THEN
        RAISE EXCEPTION 'the secret of % cannot be exchanged', OLD.name USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER revoked_for_good BEFORE UPDATE ON api_key FOR EACH ROW EXECUTE FUNCTION revoked_for_good();
-- That it was used does not change it.
CREATE TRIGGER version_goes_up
    BEFORE UPDATE OF name, state, expires_at, models, rpm, max_concurrent, allow, delegate, replaced_by, note, revoked_at, version
    ON api_key FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, UPDATE (name, state, expires_at, models, rpm, max_concurrent, allow, delegate, replaced_by, note,
                              version, revoked_at, last_used_at) ON api_key TO qwen_control;

CREATE TABLE whitelist (
    cidr       cidr        PRIMARY KEY,
    note       remark      NOT NULL DEFAULT '',
    version    int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER version_goes_up BEFORE UPDATE ON whitelist FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, DELETE, UPDATE (note, version) ON whitelist TO qwen_control;

-- A model by the name that callers use: one of the engines', or an alias of one that is not an alias itself.
CREATE TABLE model (
    name             model_name  PRIMARY KEY,
    alias_of         model_name  CHECK (alias_of <> name),
    is_alias         bool        NOT NULL GENERATED ALWAYS AS (alias_of IS NOT NULL) STORED,
    target_is_alias  bool        GENERATED ALWAYS AS (CASE WHEN alias_of IS NOT NULL THEN false END) STORED,
    backend_model    model_name,
    num_ctx          bigint      CHECK (num_ctx BETWEEN 4 AND 100000000),
    keep_alive       text        CHECK (keep_alive ~ '^-?[0-9]{1,9}$' OR keep_alive ~ '^-?([0-9]{1,9}(ns|us|ms|s|m|h)){1,6}$'),
    max_prompt_chars bigint      CHECK (max_prompt_chars BETWEEN 0 AND 1000000000),
    max_system_chars bigint      CHECK (max_system_chars BETWEEN 0 AND 1000000000),
    think            bool,
    preload          bool        NOT NULL DEFAULT false,
    note             remark      NOT NULL DEFAULT '',
    version          int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, is_alias),
    FOREIGN KEY (alias_of, target_is_alias) REFERENCES model (name, is_alias),
    CHECK (alias_of IS NULL OR (backend_model IS NULL AND num_ctx IS NULL AND keep_alive IS NULL AND NOT preload))
);
CREATE INDEX model_alias_of ON model (alias_of) WHERE alias_of IS NOT NULL;
CREATE TRIGGER version_goes_up BEFORE UPDATE ON model FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, DELETE,
    UPDATE (alias_of, backend_model, num_ctx, keep_alive, max_prompt_chars, max_system_chars, think, preload, note, version)
    ON model TO qwen_control;

CREATE TABLE backend (
    name       text         COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    url        text         NOT NULL CHECK (char_length(url) <= 512 AND url ~ '^https?://[^[:space:][:cntrl:]@]+$'),
    kind       text         NOT NULL DEFAULT 'ollama' CHECK (kind IN ('ollama')),
    slots      int          NOT NULL DEFAULT 0 CHECK (slots BETWEEN 0 AND 1000),
    models     model_name[] CHECK (cardinality(models) BETWEEN 1 AND 1000 AND array_position(models, NULL) IS NULL),
    weight     int          NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 1000),
    drain      bool         NOT NULL DEFAULT false,
    note       remark       NOT NULL DEFAULT '',
    version    int          NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz  NOT NULL DEFAULT now(),
    updated_at timestamptz  NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX backend_url_key ON backend (url);
CREATE TRIGGER version_goes_up BEFORE UPDATE ON backend FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, DELETE, UPDATE (url, kind, slots, models, weight, drain, note, version) ON backend TO qwen_control;

CREATE TABLE setting (
    name       text        COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.]{0,63}$'),
    value      jsonb       NOT NULL,
    version    int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER version_goes_up BEFORE UPDATE ON setting FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, DELETE, UPDATE (value, version) ON setting TO qwen_control;
