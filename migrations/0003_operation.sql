-- Who may act, who did what, which gateways there are, and who leads.

CREATE TABLE gateway (
    id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name            label       NOT NULL,
    public_key      bytea       CHECK (octet_length(public_key) = 32), -- Ed25519; NULL: not enrolled yet
    enrol_hash      digest      UNIQUE,                                -- of the secret that enrols it once
    enrol_expires   timestamptz,
    last_seen       timestamptz,
    desired_version bigint      NOT NULL DEFAULT 0 CHECK (desired_version >= 0),
    applied_version bigint      NOT NULL DEFAULT 0 CHECK (applied_version >= 0),
    apply_error     text        CHECK (char_length(apply_error) <= 4000),
    software        text        CHECK (char_length(software) <= 200),
    features        text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(features) <= 100),
    address         inet,
    note            remark      NOT NULL DEFAULT '',
    version         int         NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    removed_at      timestamptz,
    CHECK ((enrol_hash IS NULL) = (enrol_expires IS NULL)),
    CHECK (removed_at IS NULL OR enrol_hash IS NULL) -- who was removed cannot enrol
);
CREATE UNIQUE INDEX gateway_name_key ON gateway (name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX gateway_public_key_key ON gateway (public_key); -- removed ones too: their key stays refused

CREATE FUNCTION removed_for_good() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    IF OLD.removed_at IS NOT NULL AND NEW.removed_at IS DISTINCT FROM OLD.removed_at THEN
        RAISE EXCEPTION 'the gateway % was removed for good', OLD.name USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER removed_for_good BEFORE UPDATE ON gateway FOR EACH ROW EXECUTE FUNCTION removed_for_good();
-- What it reports of itself does not change it.
CREATE TRIGGER version_goes_up BEFORE UPDATE OF name, public_key, enrol_hash, enrol_expires, note, removed_at, version
    ON gateway FOR EACH ROW EXECUTE FUNCTION version_goes_up();
GRANT SELECT, INSERT, UPDATE (name, public_key, enrol_hash, enrol_expires, last_seen, desired_version, applied_version,
                              apply_error, software, features, address, note, version, removed_at) ON gateway TO qwen_control;

CREATE TABLE admin_token (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name         label       NOT NULL,
    hash         digest      NOT NULL UNIQUE,
    role         text        NOT NULL CHECK (role IN ('viewer', 'operator', 'billing', 'owner')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE UNIQUE INDEX admin_token_name_key ON admin_token (name) WHERE revoked_at IS NULL;
CREATE TRIGGER revoked_for_good BEFORE UPDATE ON admin_token FOR EACH ROW EXECUTE FUNCTION revoked_for_good();
GRANT SELECT, INSERT, UPDATE (revoked_at, last_used_at) ON admin_token TO qwen_control;

-- What a request with this key was answered, so that sending it again does nothing new.
CREATE TABLE idempotency (
    token_id     uuid        NOT NULL REFERENCES admin_token (id),
    key          text        COLLATE "C" NOT NULL CHECK (key ~ '^[\x21-\x7e]{1,255}$'),
    request_hash digest      NOT NULL,
    status       int         NOT NULL CHECK (status BETWEEN 200 AND 599),
    body         text        NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token_id, key)
);
CREATE INDEX idempotency_at ON idempotency (at);
GRANT SELECT, DELETE, INSERT (token_id, key, request_hash, status, body) ON idempotency TO qwen_control;

-- Who did what, from where, and what it was before and after. The number and the time are the database's to give, and
-- what was written stays.
CREATE TABLE audit_log (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    token_id   uuid        REFERENCES admin_token (id), -- NULL: on the machine itself (`qwen-control`)
    actor      text        NOT NULL CHECK (actor <> '' AND char_length(actor) <= 200),
    address    inet,
    request_id text        CHECK (char_length(request_id) <= 200),
    action     text        NOT NULL CHECK (action ~ '^[a-z_]{1,32}$'),
    noun       text        NOT NULL CHECK (noun ~ '^[a-z_]{1,32}$'),
    object_id  text        NOT NULL CHECK (char_length(object_id) <= 512),
    before     jsonb,
    after      jsonb
);
CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE INDEX audit_log_object ON audit_log (noun, object_id, id);
GRANT SELECT, INSERT (token_id, actor, address, request_id, action, noun, object_id, before, after) ON audit_log TO qwen_control;

-- Who leads. Whoever writes as the leader names the epoch it leads in, and is nobody once that is over.
CREATE TABLE leader (
    one        bool        PRIMARY KEY DEFAULT true CHECK (one),
    holder     text        CHECK (holder <> '' AND char_length(holder) <= 200), -- NULL: nobody yet, or given back
    epoch      bigint      NOT NULL CHECK (epoch >= 0),
    expires_at timestamptz NOT NULL
);
INSERT INTO leader (epoch, expires_at) VALUES (0, '-infinity');

CREATE FUNCTION leader_epoch_goes_up() RETURNS trigger LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    IF NEW.epoch < OLD.epoch OR (NEW.holder IS NOT NULL AND NEW.holder IS DISTINCT FROM OLD.holder AND NEW.epoch = OLD.epoch) THEN
        RAISE EXCEPTION 'a new leader needs a new epoch, above %', OLD.epoch USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER epoch_goes_up BEFORE UPDATE ON leader FOR EACH ROW EXECUTE FUNCTION leader_epoch_goes_up();
GRANT SELECT, UPDATE (holder, epoch, expires_at) ON leader TO qwen_control;
