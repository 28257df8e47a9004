-- Administration: every change is one call of admin_change(), which also writes who did it, what it was before and after,
-- and what gateways are to learn of it; NOUN_get() and NOUN_list() show what there is, as JSON.
--
-- What is refused is an exception: QW400 a value is no good, QW404 not there, QW409 somebody else has changed it, QW410
-- revoked or removed for good, QW422 an idempotency key that stood for something else, QW503 not the leader, QWDUP
-- there is one already, QWUSE something still needs it. MESSAGE is a sentence for people (it never quotes what could
-- disturb a terminal), DETAIL the JSON pointer to what is wrong, or empty.
--
-- Changes of what gateways go by are made one after the other, each with config_head locked from its first moment: so
-- what it reads is what it changes. That lock must not be taken within a savepoint (see 0002): no function here that
-- writes has an EXCEPTION block.

-- Refusals and readers -------------------------------------------------------------------------------------------------

CREATE FUNCTION refuse(state text, pointer text, words text) RETURNS void LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = state, MESSAGE = words, DETAIL = pointer;
END $$;

-- "there is no user alice", or without the name where that could be anything.
CREATE FUNCTION refuse_missing(noun text, object text) RETURNS void LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    PERFORM refuse('QW404', '', CASE WHEN object ~ '^[!-~]{1,128}$' THEN format('there is no %s %s', noun, object)
                                     ELSE format('there is no such %s', noun) END);
END $$;

CREATE FUNCTION refuse_old(expected int, present int) RETURNS void LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF expected <> present THEN
        PERFORM refuse('QW409', '', format('it was changed by somebody else: it is at version %s, not %s', present, expected));
    END IF;
END $$;

CREATE FUNCTION is_uuid(object text) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
    SELECT object ~ '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'
$$;

-- Refuses what is no object, and members that the noun does not have.
CREATE FUNCTION members_are(given jsonb, pointer text, noun text, names text[]) RETURNS void LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    odd text;
BEGIN
    IF jsonb_typeof(given) IS DISTINCT FROM 'object' THEN
        PERFORM refuse('QW400', pointer, 'must be an object');
    END IF;
    SELECT name INTO odd FROM jsonb_object_keys(given) AS name WHERE name <> ALL (names) LIMIT 1;
    IF odd ~ '^[a-zA-Z0-9_-]{1,64}$' THEN
        PERFORM refuse('QW400', pointer || '/' || odd, format('is nothing that one can say of a %s here', noun));
    ELSIF odd IS NOT NULL THEN
        PERFORM refuse('QW400', pointer, format('has a member that one cannot say of a %s here', noun));
    END IF;
END $$;

-- Each reads one member; null and what is absent are NULL.
CREATE FUNCTION text_of(given jsonb, pointer text, most int, words text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) <> 'string' OR char_length(given #>> '{}') > most THEN
        PERFORM refuse('QW400', pointer, 'must be ' || words);
    END IF;
    RETURN given #>> '{}';
END $$;

CREATE FUNCTION matching(given jsonb, pointer text, most int, form text, words text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    value text := text_of(given, pointer, most, words);
BEGIN
    IF value COLLATE "C" !~ form THEN
        PERFORM refuse('QW400', pointer, 'must be ' || words);
    END IF;
    RETURN value;
END $$;

CREATE FUNCTION label_of(given jsonb, pointer text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    value text := matching(given, pointer, 128, '^[a-z0-9_][a-z0-9._@+-]{0,127}$',
                           '1 to 128 of a-z, 0-9, ".", "_", "@", "+" and "-", and begin with a letter, a digit or "_"');
BEGIN
    IF value IS NULL THEN
        PERFORM refuse('QW400', pointer, 'is missing');
    ELSIF is_uuid(value) THEN
        PERFORM refuse('QW400', pointer, 'must not look like an id');
    END IF;
    RETURN value;
END $$;

CREATE FUNCTION note_of(given jsonb, pointer text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN coalesce(matching(given, pointer, 1000,
                             '^[^\x01-\x1f\x7f\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$',
                             'one line of at most 1000 characters, without controls and marks that turn the direction'), '');
END $$;

CREATE FUNCTION number_of(given jsonb, pointer text, low bigint, high bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    value numeric;
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) = 'number' THEN
        value := given;
    END IF;
    IF value IS NULL OR value NOT BETWEEN low AND high OR value <> trunc(value) THEN
        PERFORM refuse('QW400', pointer, format('must be a whole number from %s to %s', low, high));
    END IF;
    RETURN value;
END $$;

CREATE FUNCTION bool_of(given jsonb, pointer text) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN NULL;
    END IF;
    IF jsonb_typeof(given) <> 'boolean' THEN
        PERFORM refuse('QW400', pointer, 'must be true or false');
    END IF;
    RETURN given;
END $$;

-- One of a few words.
CREATE FUNCTION word_of(given jsonb, pointer text, words text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    allowed text := 'one of ' || array_to_string(words, ', ');
    value   text := text_of(given, pointer, 32, allowed);
BEGIN
    IF value <> ALL (words) THEN
        PERFORM refuse('QW400', pointer, 'must be ' || allowed);
    END IF;
    RETURN value;
END $$;

CREATE FUNCTION model_of(given jsonb, pointer text) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN matching(given, pointer, 255, '^[A-Za-z0-9_][A-Za-z0-9._:/-]{0,254}$',
                    'the name of a model: letters, digits and "._-/", with a tag behind ":"');
END $$;

-- The members of a list with their pointers; NULL: there is no list.
CREATE FUNCTION list_of(given jsonb, pointer text, what text) RETURNS bool LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given IS NULL OR given = 'null' THEN
        RETURN false;
    END IF;
    IF jsonb_typeof(given) <> 'array' OR jsonb_array_length(given) NOT BETWEEN 1 AND 1000 THEN
        PERFORM refuse('QW400', pointer, format('must be a list of 1 to 1000 %s, or null', what));
    END IF;
    IF given @> '[null]' THEN
        PERFORM refuse('QW400', pointer, 'must not have null in it');
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION models_of(given jsonb, pointer text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF NOT list_of(given, pointer, 'names of models') THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT array_agg(name ORDER BY place)
            FROM (SELECT DISTINCT ON (name) name, place
                  FROM (SELECT model_of(member, pointer || '/' || place - 1) AS name, place
                        FROM jsonb_array_elements(given) WITH ORDINALITY AS members (member, place)) AS named
                  ORDER BY name, place) AS once);
END $$;

-- NULL: it is none. PostgreSQL itself would also take 10 for 10.0.0.0/8.
CREATE FUNCTION range_or_null(value text) RETURNS cidr LANGUAGE plpgsql IMMUTABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF value !~ '^(([0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/[0-9]{1,3})?$' OR char_length(value) > 64 THEN
        RETURN NULL;
    END IF;
    RETURN value::cidr;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END $$;

CREATE FUNCTION range_of(given jsonb, pointer text) RETURNS cidr LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    words text := 'an address, or a range such as 10.0.0.0/16 with nothing set behind its prefix';
    value text := text_of(given, pointer, 64, words);
    found cidr := range_or_null(value);
BEGIN
    IF value IS NOT NULL AND found IS NULL THEN
        PERFORM refuse('QW400', pointer, 'must be ' || words);
    END IF;
    RETURN found;
END $$;

CREATE FUNCTION ranges_of(given jsonb, pointer text) RETURNS cidr[] LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF NOT list_of(given, pointer, 'ranges of addresses') THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT array_agg(range ORDER BY place)
            FROM (SELECT DISTINCT ON (range) range, place
                  FROM (SELECT range_of(member, pointer || '/' || place - 1) AS range, place
                        FROM jsonb_array_elements(given) WITH ORDINALITY AS members (member, place)) AS ranges
                  ORDER BY range, place) AS once);
END $$;

CREATE FUNCTION time_or_null(value text) RETURNS timestamptz LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF value !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$' THEN
        RETURN NULL;
    END IF;
    RETURN value::timestamptz;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format OR invalid_time_zone_displacement_value THEN
    RETURN NULL;
END $$;

CREATE FUNCTION time_of(given jsonb, pointer text) RETURNS timestamptz LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    words text := 'a time such as 2026-12-31T23:59:59Z';
    value text := text_of(given, pointer, 40, words);
    found timestamptz := time_or_null(value);
BEGIN
    IF value IS NOT NULL AND found IS NULL THEN
        PERFORM refuse('QW400', pointer, 'must be ' || words);
    END IF;
    RETURN found;
END $$;

-- "90d", "24h", "30m", "15s", or a number of seconds.
CREATE FUNCTION seconds_of(given jsonb, pointer text, low bigint, high bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    value   text;
    seconds bigint;
BEGIN
    IF jsonb_typeof(given) = 'number' THEN
        RETURN number_of(given, pointer, low, high);
    END IF;
    value := matching(given, pointer, 16, '^[0-9]{1,9}[dhms]$', 'a duration such as 90d, 24h, 30m or 15s');
    seconds := left(value, -1)::bigint * CASE right(value, 1) WHEN 'd' THEN 86400 WHEN 'h' THEN 3600 WHEN 'm' THEN 60 ELSE 1 END;
    IF seconds NOT BETWEEN low AND high THEN
        PERFORM refuse('QW400', pointer, format('must be %s seconds to %s days', low, high / 86400));
    END IF;
    RETURN seconds;
END $$;

-- When it ends: expires_at, or expires_in from now. NULL: never.
CREATE FUNCTION end_of(given jsonb, pointer text) RETURNS timestamptz LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    until timestamptz := time_of(given -> 'expires_at', pointer || '/expires_at');
    -- 100 years
    after bigint := seconds_of(given -> 'expires_in', pointer || '/expires_in', 1, 3153600000);
BEGIN
    IF until IS NOT NULL AND after IS NOT NULL THEN
        PERFORM refuse('QW400', pointer || '/expires_in', 'must not stand beside expires_at');
    END IF;
    IF until <= now() THEN
        PERFORM refuse('QW400', pointer || '/expires_at', 'is over already');
    ELSIF until > now() + interval '3153600000 s' THEN
        PERFORM refuse('QW400', pointer || '/expires_at', 'is more than 100 years away');
    END IF;
    RETURN coalesce(until, now() + make_interval(secs => after));
END $$;

CREATE FUNCTION hash_of(given jsonb, pointer text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    value text := matching(given, pointer, 64, '^[0-9a-fA-F]{64}$', '64 hexadecimal digits: the SHA-256 of a secret');
BEGIN
    IF value IS NULL THEN
        PERFORM refuse('QW400', pointer, 'is missing');
    END IF;
    RETURN decode(value, 'hex');
END $$;

-- Finding --------------------------------------------------------------------------------------------------------------

-- By id or by name; NULL: there is none.
CREATE FUNCTION team_find(object text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF is_uuid(object) THEN
        RETURN (SELECT id FROM team WHERE id = object::uuid AND deleted_at IS NULL);
    END IF;
    RETURN (SELECT id FROM team WHERE name = object AND deleted_at IS NULL);
END $$;

CREATE FUNCTION user_find(object text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF is_uuid(object) THEN
        RETURN (SELECT id FROM app_user WHERE id = object::uuid AND deleted_at IS NULL);
    END IF;
    RETURN (SELECT id FROM app_user WHERE name = object AND deleted_at IS NULL);
END $$;

-- By id, by public id, or as USER/NAME, which is the active one if there is one, else the newest of that name.
CREATE FUNCTION key_find(object text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
DECLARE
    slash int := strpos(object, '/');
BEGIN
    IF is_uuid(object) THEN
        RETURN (SELECT id FROM api_key WHERE id = object::uuid);
    ELSIF slash = 0 THEN
        RETURN (SELECT id FROM api_key WHERE prefix = object);
    END IF;
    RETURN (SELECT id FROM api_key
            WHERE user_id = user_find(left(object, slash - 1)) AND name = substr(object, slash + 1)
            ORDER BY state, created_at DESC, id LIMIT 1);
END $$;

CREATE FUNCTION gateway_find(object text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF is_uuid(object) THEN
        RETURN (SELECT id FROM gateway WHERE id = object::uuid);
    END IF;
    RETURN (SELECT id FROM gateway WHERE name = object AND removed_at IS NULL);
END $$;

CREATE FUNCTION admin_token_find(object text) RETURNS uuid LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF is_uuid(object) THEN
        RETURN (SELECT id FROM admin_token WHERE id = object::uuid);
    END IF;
    RETURN (SELECT id FROM admin_token WHERE name = object
            ORDER BY revoked_at IS NOT NULL, created_at DESC, id LIMIT 1);
END $$;

-- The indexes by which pages are turned (see NOUN_list) ------------------------------------------------------------------

DROP INDEX api_key_user_id, api_key_expires_at, app_user_team_id, audit_log_at, audit_log_object;
CREATE UNIQUE INDEX api_key_prefix_key ON api_key (prefix) WHERE prefix IS NOT NULL;
CREATE INDEX api_key_page_user ON api_key (user_id, state, created_at, id);
CREATE INDEX api_key_page_name ON api_key (name, user_id, created_at, id);
CREATE INDEX api_key_page_revoked ON api_key (created_at, id) WHERE state = 'revoked';
CREATE INDEX api_key_page_end ON api_key ((coalesce(expires_at, 'infinity')), created_at, id) WHERE state = 'active';
CREATE INDEX api_key_count ON api_key (user_id, expires_at) WHERE state = 'active';
CREATE INDEX app_user_team ON app_user (team_id, id) WHERE deleted_at IS NULL;
CREATE INDEX app_user_page_team ON app_user (team_id, name) WHERE deleted_at IS NULL;
CREATE INDEX app_user_page_disabled ON app_user (name) WHERE disabled AND deleted_at IS NULL;
CREATE INDEX admin_token_page ON admin_token (name, id);
CREATE INDEX audit_log_page ON audit_log (at, id);
CREATE INDEX audit_log_page_object ON audit_log (noun, object_id, at, id);
CREATE INDEX audit_log_page_noun ON audit_log (noun, at, id);
CREATE INDEX audit_log_page_actor ON audit_log (actor, at, id);
CREATE INDEX audit_log_page_action ON audit_log (action, at, id);

-- What gateways go by --------------------------------------------------------------------------------------------------

-- Keys that travel; of those that have expired the gateway knows by itself.
CREATE VIEW published_key AS
    SELECT k.id, k.hash, u.name AS user_name, t.name AS team_name, coalesce(k.prefix, k.name) AS name, k.delegate, u.class,
           floor(extract(epoch FROM k.expires_at))::bigint AS expires_s, u.weight, k.rpm, k.max_concurrent,
           k.models::text[] AS models, k.allow::text[] AS allow
    FROM api_key AS k JOIN app_user AS u ON u.id = k.user_id LEFT JOIN team AS t ON t.id = u.team_id
    WHERE k.state = 'active' AND u.deleted_at IS NULL AND NOT u.disabled;

-- An alias is what its target is, but for what it says itself; the target is loaded early, so it need not be.
CREATE VIEW published_other AS
    SELECT 'range' AS kind, cidr::text AS id, '{}'::jsonb AS body FROM whitelist
    UNION ALL
    SELECT 'model', m.name,
           jsonb_build_object('backend_model', CASE WHEN t.name IS NULL THEN m.backend_model ELSE coalesce(t.backend_model, t.name) END,
                              'num_ctx', coalesce(m.num_ctx, t.num_ctx), 'keep_alive', coalesce(m.keep_alive, t.keep_alive),
                              'max_prompt_chars', coalesce(m.max_prompt_chars, t.max_prompt_chars),
                              'max_system_chars', coalesce(m.max_system_chars, t.max_system_chars),
                              'think', coalesce(m.think, t.think), 'preload', m.preload)
    FROM model AS m LEFT JOIN model AS t ON t.name = m.alias_of
    UNION ALL
    SELECT 'backend', name, jsonb_build_object('url', url, 'kind', kind, 'slots', slots, 'models', models, 'weight', weight,
                                               'drain', drain)
    FROM backend
    UNION ALL
    SELECT 'setting', name, jsonb_build_object('value', value) FROM setting;

-- A key as it stands in change_log. (No search path of its own, so that it becomes a part of what asks.)
CREATE FUNCTION key_body(k published_key) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('hash', encode(k.hash, 'hex'), 'user', k.user_name, 'team', k.team_name, 'name', k.name,
                              'delegate', k.delegate, 'class', k.class, 'expires', k.expires_s, 'weight', k.weight, 'rpm', k.rpm,
                              'max_concurrent', k.max_concurrent, 'models', k.models, 'allow', k.allow)
$$;

-- NULL: it does not travel.
CREATE FUNCTION key_body_now(of_key uuid) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT key_body(k) FROM published_key AS k WHERE k.id = of_key);
END $$;

-- A version in which these keys are what they are now, or gone.
CREATE FUNCTION log_keys(ids uuid[], cut bool) RETURNS void LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    new_version bigint;
BEGIN
    IF cardinality(ids) IS DISTINCT FROM 0 AND ids IS NOT NULL THEN
        UPDATE config_head SET version = version + 1 RETURNING version INTO new_version;
        INSERT INTO change_log (version, seq, kind, id, body)
            SELECT new_version, row_number() OVER (ORDER BY wanted.place) - 1, 'key', k.id::text,
                   CASE WHEN p.id IS NULL THEN jsonb_build_object('gone', true, 'hash', encode(k.hash, 'hex'), 'cut', cut)
                        ELSE key_body(p) END
            FROM unnest(ids) WITH ORDINALITY AS wanted (id, place) JOIN api_key AS k ON k.id = wanted.id
            LEFT JOIN published_key AS p ON p.id = k.id;
    END IF;
END $$;

CREATE FUNCTION log_key(of_key uuid, was jsonb) RETURNS void LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    IF key_body_now(of_key) IS DISTINCT FROM was THEN
        PERFORM log_keys(ARRAY[of_key], false);
    END IF;
END $$;

-- Some that are no keys, as a map from id to body.
CREATE FUNCTION others_now(of_kind text, ids text[]) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_object_agg(o.id, o.body), '{}') FROM published_other AS o WHERE o.kind = of_kind AND o.id = ANY (ids));
END $$;

-- A version with the difference between what they were and what they are; none if that is nothing.
CREATE FUNCTION log_others(of_kind text, was jsonb, ids text[]) RETURNS void LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    now_are     jsonb := others_now(of_kind, ids);
    new_version bigint;
BEGIN
    IF was IS DISTINCT FROM now_are THEN
        UPDATE config_head SET version = version + 1 RETURNING version INTO new_version;
        INSERT INTO change_log (version, seq, kind, id, body)
            SELECT new_version, row_number() OVER (ORDER BY name) - 1, of_kind, name, now_are -> name
            FROM (SELECT jsonb_object_keys(was || now_are) AS name) AS names
            WHERE was -> name IS DISTINCT FROM now_are -> name;
    END IF;
END $$;

CREATE FUNCTION audit(who jsonb, action text, noun text, object text, before json, after json) RETURNS void
    LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    INSERT INTO audit_log (token_id, actor, address, request_id, action, noun, object_id, before, after)
        VALUES ((who ->> 'token_id')::uuid, who ->> 'actor', (who ->> 'address')::inet, who ->> 'request_id', audit.action, audit.noun,
                audit.object, audit.before, audit.after);
END $$;

-- What is shown -------------------------------------------------------------------------------------------------------

CREATE FUNCTION shown(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

CREATE VIEW shown_team AS
    SELECT t.id, t.name, t.note, (SELECT count(*) FROM app_user AS u WHERE u.team_id = t.id AND u.deleted_at IS NULL) AS users,
           t.version, shown(t.created_at) AS created_at, shown(t.updated_at) AS updated_at
    FROM team AS t;

CREATE VIEW shown_user AS
    SELECT u.id, u.name, (SELECT t.name FROM team AS t WHERE t.id = u.team_id) AS team, u.weight, u.class, u.disabled, u.note,
           (SELECT count(*) FROM api_key AS k WHERE k.user_id = u.id AND k.state = 'active'
                                                    AND (k.expires_at IS NULL OR k.expires_at > now())) AS keys,
           u.version, shown(u.created_at) AS created_at, shown(u.updated_at) AS updated_at
    FROM app_user AS u;

CREATE VIEW shown_key AS
    SELECT k.id, u.name AS "user", t.name AS team, k.name, k.prefix,
           CASE WHEN k.state = 'active' AND k.expires_at <= now() THEN 'expired' ELSE k.state END AS state,
           shown(k.expires_at) AS expires_at, k.models, k.rpm, k.max_concurrent, k.allow, k.delegate, k.replaced_by, k.note,
           k.version, shown(k.created_at) AS created_at, shown(k.updated_at) AS updated_at, shown(k.revoked_at) AS revoked_at
    FROM api_key AS k JOIN app_user AS u ON u.id = k.user_id LEFT JOIN team AS t ON t.id = u.team_id;

CREATE VIEW shown_whitelist AS
    SELECT w.cidr, w.note, w.version, shown(w.created_at) AS created_at, shown(w.updated_at) AS updated_at FROM whitelist AS w;

CREATE VIEW shown_model AS
    SELECT m.name, m.alias_of, m.backend_model, m.num_ctx, m.keep_alive, m.max_prompt_chars, m.max_system_chars, m.think,
           m.preload, m.note, m.version, shown(m.created_at) AS created_at, shown(m.updated_at) AS updated_at
    FROM model AS m;

CREATE VIEW shown_backend AS
    SELECT b.name, b.url, b.kind, b.slots, b.models, b.weight, b.drain, b.note, b.version, shown(b.created_at) AS created_at,
           shown(b.updated_at) AS updated_at
    FROM backend AS b;

CREATE VIEW shown_setting AS
    SELECT s.name, s.value, s.version, shown(s.created_at) AS created_at, shown(s.updated_at) AS updated_at FROM setting AS s;

-- It is to forget what it holds and take all anew: the last order to do so, and the last that it has carried out.
ALTER TABLE gateway ADD COLUMN resync_asked bigint NOT NULL DEFAULT 0 CHECK (resync_asked >= 0);
ALTER TABLE gateway ADD COLUMN resync_done bigint NOT NULL DEFAULT 0 CHECK (resync_done BETWEEN 0 AND resync_asked);
GRANT UPDATE (resync_asked, resync_done) ON gateway TO qwen_control;

CREATE VIEW shown_gateway AS
    SELECT g.id, g.name, g.public_key IS NOT NULL AS enrolled, shown(g.enrol_expires) AS enroll_expires_at,
           shown(g.last_seen) AS last_seen, g.desired_version, g.applied_version, g.apply_error, g.software, g.features, g.address,
           g.resync_asked > g.resync_done AS resyncing, g.note, g.version, shown(g.created_at) AS created_at,
           shown(g.removed_at) AS removed_at
    FROM gateway AS g;

CREATE VIEW shown_admin_token AS
    SELECT t.id, t.name, t.role, shown(t.created_at) AS created_at, shown(t.expires_at) AS expires_at,
           shown(t.revoked_at) AS revoked_at, shown(t.last_used_at) AS last_used_at
    FROM admin_token AS t;

CREATE FUNCTION team_json(one uuid) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_team AS s WHERE s.id = one);
END $$;
CREATE FUNCTION user_json(one uuid) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_user AS s WHERE s.id = one);
END $$;
CREATE FUNCTION key_json(one uuid) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_key AS s WHERE s.id = one);
END $$;
CREATE FUNCTION whitelist_json(one cidr) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_whitelist AS s WHERE s.cidr = one);
END $$;
CREATE FUNCTION model_json(one text) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_model AS s WHERE s.name = one);
END $$;
CREATE FUNCTION backend_json(one text) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_backend AS s WHERE s.name = one);
END $$;
CREATE FUNCTION setting_json(one text) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_setting AS s WHERE s.name = one);
END $$;
CREATE FUNCTION gateway_json(one uuid) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_gateway AS s WHERE s.id = one);
END $$;
CREATE FUNCTION admin_token_json(one uuid) RETURNS json LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT row_to_json(s) FROM shown_admin_token AS s WHERE s.id = one);
END $$;

-- NULL: there is none.
CREATE FUNCTION team_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN team_json(team_find(object))::text;
END $$;
CREATE FUNCTION user_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN user_json(user_find(object))::text;
END $$;
CREATE FUNCTION key_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN key_json(key_find(object))::text;
END $$;
CREATE FUNCTION whitelist_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN whitelist_json(range_or_null(object))::text;
END $$;
CREATE FUNCTION model_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN model_json(object)::text;
END $$;
CREATE FUNCTION backend_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN backend_json(object)::text;
END $$;
CREATE FUNCTION setting_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN setting_json(object)::text;
END $$;
CREATE FUNCTION gateway_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN gateway_json(gateway_find(object))::text;
END $$;
CREATE FUNCTION admin_token_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN admin_token_json(admin_token_find(object))::text;
END $$;
-- Pages: at most so many, behind a position that an earlier page gave.

CREATE FUNCTION page_by_name(noun text, condition text, filter jsonb, after text, most int)
    RETURNS TABLE (body text, "position" text) LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT row_to_json(s)::text, s.name::text FROM shown_%1$s AS s '
        'JOIN (SELECT t.name FROM %1$I AS t WHERE t.name > $1 AND %2$s ORDER BY t.name LIMIT $2) AS page ON page.name = s.name '
        'ORDER BY s.name', noun, condition)
        USING coalesce(after, ''), most, filter ->> 'name';
END $$;

CREATE FUNCTION page_by_id(noun text, of_table text, condition text, filter jsonb, after text, most int)
    RETURNS TABLE (body text, "position" text) LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT row_to_json(s)::text, page.name::text FROM shown_%1$s AS s '
        'JOIN (SELECT t.id, t.name FROM %2$I AS t WHERE t.name > $1 AND %3$s ORDER BY t.name LIMIT $2) AS page ON page.id = s.id '
        'ORDER BY page.name', noun, of_table, condition)
        USING coalesce(after, ''), most, filter ->> 'name', team_find(filter ->> 'team'), (filter ->> 'disabled')::bool;
END $$;

CREATE FUNCTION name_condition(filter jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN filter ->> 'name' IS NULL THEN 'true' ELSE 't.name = $3' END
$$;

CREATE FUNCTION team_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_id('team', 'team', 't.deleted_at IS NULL AND ' || name_condition(filter), filter, after, most)
$$;
CREATE FUNCTION user_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_id('user', 'app_user',
                             't.deleted_at IS NULL AND ' || name_condition(filter)
                             || CASE WHEN filter ->> 'team' IS NULL THEN '' ELSE ' AND t.team_id = $4' END
                             || CASE (filter ->> 'disabled')::bool WHEN true THEN ' AND t.disabled' WHEN false THEN ' AND NOT t.disabled'
                                     ELSE '' END,
                             filter, after, most)
$$;
CREATE FUNCTION gateway_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_id('gateway', 'gateway', 't.removed_at IS NULL AND ' || name_condition(filter), filter, after, most)
$$;
CREATE FUNCTION model_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_name('model', name_condition(filter), filter, after, most)
$$;
CREATE FUNCTION backend_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_name('backend', name_condition(filter), filter, after, most)
$$;
CREATE FUNCTION setting_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT * FROM page_by_name('setting', name_condition(filter), filter, after, most)
$$;

CREATE FUNCTION whitelist_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
DECLARE
    range cidr := range_or_null(filter ->> 'name');
BEGIN
    RETURN QUERY SELECT row_to_json(s)::text, s.cidr::text FROM shown_whitelist AS s
                 WHERE (after IS NULL OR s.cidr > after::cidr) AND (filter ->> 'name' IS NULL OR s.cidr = range)
                 ORDER BY s.cidr LIMIT most;
END $$;

CREATE FUNCTION admin_token_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT row_to_json(s)::text, s.name || '|' || s.id FROM shown_admin_token AS s
                 WHERE (after IS NULL OR (s.name, s.id) > (split_part(after, '|', 1), split_part(after, '|', 2)::uuid))
                       AND (filter ->> 'name' IS NULL OR s.name = filter ->> 'name')
                 ORDER BY s.name, s.id LIMIT most;
END $$;

-- The newest first.
CREATE FUNCTION audit_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    condition text := 'true';
BEGIN
    IF filter ->> 'id' IS NOT NULL THEN condition := condition || ' AND a.id = $2'; END IF;
    IF filter ->> 'actor' IS NOT NULL THEN condition := condition || ' AND a.actor = $3'; END IF;
    IF filter ->> 'noun' IS NOT NULL THEN condition := condition || ' AND a.noun = $4'; END IF;
    IF filter ->> 'object_id' IS NOT NULL THEN condition := condition || ' AND a.object_id = $5'; END IF;
    IF filter ->> 'action' IS NOT NULL THEN condition := condition || ' AND a.action = $6'; END IF;
    IF filter ->> 'from' IS NOT NULL THEN condition := condition || ' AND a.at >= $7'; END IF;
    IF filter ->> 'to' IS NOT NULL THEN condition := condition || ' AND a.at < $8'; END IF;
    IF after IS NOT NULL THEN condition := condition || ' AND (a.at, a.id) < ($9, $10)'; END IF;
    RETURN QUERY EXECUTE
        'SELECT row_to_json(s)::text, page.at || ''|'' || page.id '
        'FROM (SELECT * FROM audit_log AS a WHERE ' || condition || ' ORDER BY a.at DESC, a.id DESC LIMIT $1) AS page, '
        'LATERAL (SELECT page.id, shown(page.at) AS at, page.actor, page.token_id, page.address, page.request_id, page.action, '
        '         page.noun, page.object_id, page.before, page.after) AS s ORDER BY page.at DESC, page.id DESC'
        USING most, (filter ->> 'id')::bigint, filter ->> 'actor', filter ->> 'noun', filter ->> 'object_id', filter ->> 'action',
              time_of(filter -> 'from', '/from'), time_of(filter -> 'to', '/to'),
              split_part(after, '|', 1)::timestamptz, split_part(after, '|', 2)::bigint;
END $$;

CREATE FUNCTION audit_get(object text) RETURNS text LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF object !~ '^[0-9]{1,18}$' THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT l.body FROM audit_list(jsonb_build_object('id', object), NULL, 1) AS l);
END $$;

-- Each filter has an index that brings the page in its order, whatever else is asked for: of one public id; of a user,
-- the active before the revoked ones; of a team, and of a name, user by user; revoked ones, in the order in which they were
-- made; active and expired ones, and what expires before a time, in the order in which they expire; else all, in the
-- order in which they were made.
CREATE FUNCTION key_list(filter jsonb, after text, most int) RETURNS TABLE (body text, "position" text)
    LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
DECLARE
    state  text := filter ->> 'state';
    soon   text := filter ->> 'expires_before';
    source text := 'api_key AS k';
    sort   text; -- of the page
    sorted text; -- the same within `source`
    casts  text[];
    also   text := '';
    marks  text[];
    behind text := '';
BEGIN
    IF state = 'revoked' THEN
        also := ' AND k.state = ''revoked''';
    ELSIF state = 'active' THEN
        also := ' AND k.state = ''active'' AND coalesce(k.expires_at, ''infinity'') > now()';
    ELSIF state = 'expired' THEN
        also := ' AND k.state = ''active'' AND coalesce(k.expires_at, ''infinity'') <= now()';
    ELSIF state IS NOT NULL THEN
        PERFORM refuse('QW400', '/state', 'must be one of active, revoked, expired');
    END IF;
    IF soon IS NOT NULL THEN
        also := also || ' AND k.state = ''active'' AND coalesce(k.expires_at, ''infinity'') < $7';
    END IF;
    IF filter ->> 'name' IS NOT NULL THEN also := also || ' AND k.name = $4'; END IF;
    IF filter ->> 'prefix' IS NOT NULL THEN also := also || ' AND k.prefix = $5'; END IF;
    IF filter ->> 'user' IS NOT NULL THEN also := also || ' AND k.user_id = $3'; END IF;

    IF filter ->> 'team' IS NOT NULL AND (filter ->> 'user' IS NOT NULL OR filter ->> 'prefix' IS NOT NULL) THEN
        also := also || ' AND (SELECT u.team_id FROM app_user AS u WHERE u.id = k.user_id AND u.deleted_at IS NULL) = $6';
    END IF;
    IF filter ->> 'prefix' IS NOT NULL THEN
        sort := 'k.id';
        casts := '{uuid}';
    ELSIF filter ->> 'user' IS NOT NULL THEN
        sort := 'k.state, k.created_at, k.id';
        casts := '{text,timestamptz,uuid}';
    ELSIF filter ->> 'team' IS NOT NULL THEN
        sort := 'k.user_id, k.state, k.created_at, k.id';
        casts := '{uuid,text,timestamptz,uuid}';
        sorted := 'o.id, k.state, k.created_at, k.id';
    ELSIF filter ->> 'name' IS NOT NULL THEN
        sort := 'k.user_id, k.created_at, k.id';
        casts := '{uuid,timestamptz,uuid}';
    ELSIF state IN ('active', 'expired') OR soon IS NOT NULL THEN
        sort := 'coalesce(k.expires_at, ''infinity''), k.created_at, k.id';
        casts := '{timestamptz,timestamptz,uuid}';
    ELSE
        sort := 'k.created_at, k.id';
        casts := '{timestamptz,uuid}';
    END IF;

    IF after IS NOT NULL THEN
        marks := string_to_array(after, '|');
        IF cardinality(marks) <> cardinality(casts) THEN
            PERFORM refuse('QW400', '/cursor', 'is of another list');
        END IF;
        SELECT format(' AND (%s) > (%s)', sort, string_agg(format('%L::%s', mark, cast_to), ', ' ORDER BY place)) INTO behind
        FROM unnest(marks, casts) WITH ORDINALITY AS m (mark, cast_to, place);
    END IF;
    IF sorted IS NOT NULL THEN
        source := format('(SELECT u.id FROM app_user AS u WHERE u.team_id = $6 AND u.deleted_at IS NULL%s ORDER BY u.id) AS o '
                         'CROSS JOIN LATERAL (SELECT * FROM api_key AS k WHERE k.user_id = o.id%s%s '
                         'ORDER BY k.state, k.created_at, k.id LIMIT $1) AS k',
                         CASE WHEN after IS NULL THEN '' ELSE format(' AND u.id >= %L::uuid', marks[1]) END, also, behind);
        also := '';
        behind := '';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT row_to_json(s)::text, page.mark FROM shown_key AS s '
        'JOIN (SELECT k.id, row_number() OVER () AS place, concat_ws(''|'', %1$s) AS mark '
        '      FROM (SELECT k.* FROM %2$s WHERE true%3$s%4$s ORDER BY %5$s LIMIT $1) AS k) AS page '
        'ON page.id = s.id ORDER BY page.place', sort, source, also, behind, coalesce(sorted, sort))
        USING most, after, user_find(filter ->> 'user'), filter ->> 'name', filter ->> 'prefix', team_find(filter ->> 'team'),
              time_of(to_jsonb(soon), '/expires_before');
END $$;

-- Teams -----------------------------------------------------------------------------------------------------------------

CREATE FUNCTION team_read(t team, given jsonb, pointer text) RETURNS team LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    PERFORM members_are(given, pointer, 'team', '{name,note}');
    IF given ? 'name' OR t.name IS NULL THEN
        t.name := label_of(given -> 'name', pointer || '/name');
        IF EXISTS (SELECT FROM team AS o WHERE o.name = t.name AND o.deleted_at IS NULL AND o.id <> t.id) THEN
            PERFORM refuse('QWDUP', pointer || '/name', format('there is a team %s already', t.name));
        END IF;
    END IF;
    IF given ? 'note' OR t.note IS NULL THEN
        t.note := note_of(given -> 'note', pointer || '/note');
    END IF;
    RETURN t;
END $$;

CREATE FUNCTION team_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    t team;
BEGIN
    t.id := gen_random_uuid();
    t := team_read(t, given, '');
    INSERT INTO team (id, name, note) VALUES (t.id, t.name, t.note);
    PERFORM audit(who, action, 'team', t.id::text, NULL, team_json(t.id));
    RETURN team_json(t.id);
END $$;

CREATE FUNCTION team_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one    uuid := team_find(object);
    before json := team_json(one);
    was    team;
    t      team;
BEGIN
    SELECT * INTO was FROM team WHERE id = one FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('team', object);
    END IF;
    PERFORM refuse_old(expected, was.version);
    t := team_read(was, given, '');
    IF t IS NOT DISTINCT FROM was THEN
        RETURN before;
    END IF;
    UPDATE team SET name = t.name, note = t.note WHERE id = one;
    PERFORM audit(who, action, 'team', one::text, before, team_json(one));
    IF t.name <> was.name THEN
        PERFORM log_keys((SELECT array_agg(k.id ORDER BY k.id) FROM app_user AS u JOIN api_key AS k ON k.user_id = u.id
                          WHERE u.team_id = one AND u.deleted_at IS NULL AND NOT u.disabled AND k.state = 'active'), false);
    END IF;
    RETURN team_json(one);
END $$;

CREATE FUNCTION team_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one    uuid := team_find(object);
    before json := team_json(one);
    was    team;
BEGIN
    SELECT * INTO was FROM team WHERE id = one FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('team', object);
    END IF;
    PERFORM refuse_old(expected, was.version);
    IF EXISTS (SELECT FROM app_user WHERE team_id = one AND deleted_at IS NULL) THEN
        PERFORM refuse('QWUSE', '', format('the team %s still has users', was.name));
    END IF;
    UPDATE team SET deleted_at = now() WHERE id = one;
    PERFORM audit(who, action, 'team', one::text, before, NULL);
    RETURN before;
END $$;

-- Users -----------------------------------------------------------------------------------------------------------------

CREATE FUNCTION user_read(u app_user, given jsonb, pointer text) RETURNS app_user LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
DECLARE
    team_name text;
BEGIN
    PERFORM members_are(given, pointer, 'user', '{name,team,weight,class,disabled,note}');
    IF given ? 'name' OR u.name IS NULL THEN
        u.name := label_of(given -> 'name', pointer || '/name');
        IF EXISTS (SELECT FROM app_user AS o WHERE o.name = u.name AND o.deleted_at IS NULL AND o.id <> u.id) THEN
            PERFORM refuse('QWDUP', pointer || '/name', format('there is a user %s already', u.name));
        END IF;
    END IF;
    IF given ? 'team' THEN
        team_name := text_of(given -> 'team', pointer || '/team', 128, 'the name of a team, or null');
        u.team_id := team_find(team_name);
        IF u.team_id IS NULL AND team_name IS NOT NULL THEN
            PERFORM refuse('QW400', pointer || '/team', 'there is no such team');
        END IF;
    END IF;
    IF given ? 'weight' OR u.weight IS NULL THEN
        u.weight := coalesce(number_of(given -> 'weight', pointer || '/weight', 1, 1000), 1);
    END IF;
    IF given ? 'class' OR u.class IS NULL THEN
        u.class := coalesce(word_of(given -> 'class', pointer || '/class', '{interactive,batch}'), 'interactive');
    END IF;
    IF given ? 'disabled' OR u.disabled IS NULL THEN
        u.disabled := coalesce(bool_of(given -> 'disabled', pointer || '/disabled'), false);
    END IF;
    IF given ? 'note' OR u.note IS NULL THEN
        u.note := note_of(given -> 'note', pointer || '/note');
    END IF;
    RETURN u;
END $$;

CREATE FUNCTION user_create(who jsonb, action text, given jsonb, pointer text) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    u app_user;
BEGIN
    u.id := gen_random_uuid();
    u := user_read(u, given, pointer);
    INSERT INTO app_user (id, name, team_id, weight, class, disabled, note)
        VALUES (u.id, u.name, u.team_id, u.weight, u.class, u.disabled, u.note);
    PERFORM audit(who, action, 'user', u.id::text, NULL, user_json(u.id));
    RETURN user_json(u.id);
END $$;

CREATE FUNCTION user_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one    uuid := user_find(object);
    before json := user_json(one);
    was    app_user;
    u      app_user;
BEGIN
    SELECT * INTO was FROM app_user WHERE id = one FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', object);
    END IF;
    PERFORM refuse_old(expected, was.version);
    u := user_read(was, given, '');
    IF u IS NOT DISTINCT FROM was THEN
        RETURN before;
    END IF;
    UPDATE app_user SET name = u.name, team_id = u.team_id, weight = u.weight, class = u.class, disabled = u.disabled,
                        note = u.note WHERE id = one;
    PERFORM audit(who, action, 'user', one::text, before, user_json(one));
    IF (u.name, u.team_id, u.weight, u.class, u.disabled) IS DISTINCT FROM (was.name, was.team_id, was.weight, was.class, was.disabled)
       AND NOT (was.disabled AND u.disabled) THEN
        PERFORM log_keys((SELECT array_agg(id ORDER BY id) FROM api_key WHERE user_id = one AND state = 'active'), false);
    END IF;
    RETURN user_json(one);
END $$;

-- Its keys are revoked: the user may never come back, or as somebody else of that name.
CREATE FUNCTION user_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one    uuid := user_find(object);
    before json := user_json(one);
    was    app_user;
    ids    uuid[];
    were   jsonb;
BEGIN
    SELECT * INTO was FROM app_user WHERE id = one FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', object);
    END IF;
    PERFORM refuse_old(expected, was.version);
    SELECT array_agg(id ORDER BY id) INTO ids FROM api_key WHERE user_id = one AND state = 'active';
    SELECT coalesce(jsonb_object_agg(s.id, row_to_json(s)), '{}') INTO were FROM shown_key AS s WHERE s.id = ANY (ids);
    UPDATE api_key SET state = 'revoked', revoked_at = now() WHERE id = ANY (ids);
    PERFORM audit(who, action, 'key', s.id::text, (were -> s.id::text)::json, row_to_json(s)) FROM shown_key AS s WHERE s.id = ANY (ids);
    UPDATE app_user SET deleted_at = now() WHERE id = one;
    PERFORM audit(who, action, 'user', one::text, before, NULL);
    IF NOT was.disabled THEN
        PERFORM log_keys(ids, false);
    END IF;
    RETURN before;
END $$;

-- Keys ------------------------------------------------------------------------------------------------------------------

-- What may be changed of a key as long as it lives.
CREATE FUNCTION key_read(k api_key, given jsonb, pointer text) RETURNS api_key LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given ? 'name' OR k.name IS NULL THEN
        k.name := label_of(given -> 'name', pointer || '/name');
        IF EXISTS (SELECT FROM api_key AS o WHERE o.user_id = k.user_id AND o.name = k.name AND o.state = 'active' AND o.id <> k.id) THEN
            PERFORM refuse('QWDUP', pointer || '/name', format('this user has a key %s already', k.name));
        END IF;
    END IF;
    IF given ? 'expires_at' OR given ? 'expires_in' THEN
        k.expires_at := end_of(given, pointer);
    END IF;
    IF given ? 'models' THEN
        k.models := models_of(given -> 'models', pointer || '/models');
    END IF;
    IF given ? 'rpm' THEN
        k.rpm := number_of(given -> 'rpm', pointer || '/rpm', 1, 1000000);
    END IF;
    IF given ? 'max_concurrent' THEN
        k.max_concurrent := number_of(given -> 'max_concurrent', pointer || '/max_concurrent', 1, 1000000);
    END IF;
    IF given ? 'allow' THEN
        k.allow := ranges_of(given -> 'allow', pointer || '/allow');
    END IF;
    IF given ? 'delegate' OR k.delegate IS NULL THEN
        k.delegate := coalesce(bool_of(given -> 'delegate', pointer || '/delegate'), false);
    END IF;
    IF given ? 'note' OR k.note IS NULL THEN
        k.note := note_of(given -> 'note', pointer || '/note');
    END IF;
    RETURN k;
END $$;

-- The secret's hash, and its public id if it has one.
CREATE FUNCTION key_secret(k api_key, given jsonb, pointer text) RETURNS api_key LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    k.hash := hash_of(given -> 'hash', pointer || '/hash');
    k.prefix := matching(given -> 'prefix', pointer || '/prefix', 16, '^[0-9A-Za-z]{4,16}$', '4 to 16 letters and digits');
    IF EXISTS (SELECT FROM api_key AS o WHERE o.hash = k.hash) THEN
        PERFORM refuse('QWDUP', pointer || '/hash', 'this secret is or was a key already');
    ELSIF EXISTS (SELECT FROM api_key AS o WHERE o.prefix = k.prefix) THEN
        PERFORM refuse('QWDUP', pointer || '/prefix', format('there is a key %s already', k.prefix));
    END IF;
    RETURN k;
END $$;

CREATE FUNCTION key_insert(k api_key) RETURNS void LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    INSERT INTO api_key (id, user_id, name, hash, prefix, expires_at, models, rpm, max_concurrent, allow, delegate, note, created_at)
        VALUES (k.id, k.user_id, k.name, k.hash, k.prefix, k.expires_at, k.models, k.rpm, k.max_concurrent, k.allow, k.delegate, k.note,
                clock_timestamp());
END $$;

-- One more key, not yet logged for gateways.
CREATE FUNCTION key_make(who jsonb, action text, given jsonb, pointer text, may_make_user bool) RETURNS uuid LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    k       api_key;
    owner   text;
    of_team text;
BEGIN
    owner := text_of(given -> 'user', pointer || '/user', 128, 'the name of a user');
    IF owner IS NULL THEN
        PERFORM refuse('QW400', pointer || '/user', 'is missing');
    END IF;
    k.user_id := user_find(owner);
    IF k.user_id IS NULL AND may_make_user THEN
        owner := label_of(given -> 'user', pointer || '/user');
        PERFORM user_create(who, action, jsonb_build_object('name', owner, 'team', given -> 'team'), pointer);
        k.user_id := user_find(owner);
    ELSIF k.user_id IS NULL THEN
        PERFORM refuse('QW400', pointer || '/user', 'there is no such user');
    ELSIF given -> 'team' <> 'null' THEN
        of_team := text_of(given -> 'team', pointer || '/team', 128, 'the name of a team, or null');
        IF team_find(of_team) IS DISTINCT FROM (SELECT team_id FROM app_user WHERE id = k.user_id) THEN
            PERFORM refuse('QW400', pointer || '/team', 'is not the team of this user, who is there already');
        END IF;
    END IF;
    k.id := gen_random_uuid();
    k := key_read(k, given, pointer);
    k := key_secret(k, given, pointer);
    PERFORM key_insert(k);
    PERFORM audit(who, action, 'key', k.id::text, NULL, key_json(k.id));
    RETURN k.id;
END $$;

CREATE FUNCTION key_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one uuid;
BEGIN
    PERFORM members_are(given, '', 'key', '{user,team,create_user,name,hash,prefix,expires_at,expires_in,models,rpm,max_concurrent,allow,'
                                          'delegate,note}');
    one := key_make(who, action, given, '', coalesce(bool_of(given -> 'create_user', '/create_user'), false));
    PERFORM log_key(one, NULL);
    RETURN key_json(one);
END $$;

CREATE FUNCTION key_lock(object text, expected int) RETURNS api_key LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    k api_key;
BEGIN
    SELECT * INTO k FROM api_key WHERE id = key_find(object) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('key', object);
    END IF;
    PERFORM refuse_old(expected, k.version);
    RETURN k;
END $$;

CREATE FUNCTION key_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    was    api_key := key_lock(object, expected);
    before json    := key_json(was.id);
    sent   jsonb   := key_body_now(was.id);
    k      api_key;
BEGIN
    PERFORM members_are(given, '', 'key', '{name,expires_at,expires_in,models,rpm,max_concurrent,allow,delegate,note}');
    IF was.state = 'revoked' THEN
        PERFORM refuse('QW410', '', format('the key %s was revoked for good', was.name));
    END IF;
    k := key_read(was, given, '');
    IF k IS NOT DISTINCT FROM was THEN
        RETURN before;
    END IF;
    UPDATE api_key SET name = k.name, expires_at = k.expires_at, models = k.models, rpm = k.rpm, max_concurrent = k.max_concurrent,
                       allow = k.allow, delegate = k.delegate, note = k.note WHERE id = k.id;
    PERFORM audit(who, action, 'key', k.id::text, before, key_json(k.id));
    PERFORM log_key(k.id, sent);
    RETURN key_json(k.id);
END $$;

-- Once more is no mistake; with `cut`, its streams end then.
CREATE FUNCTION key_revoke(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    k      api_key := key_lock(object, expected);
    before json    := key_json(k.id);
    cut    bool;
BEGIN
    PERFORM members_are(given, '', 'revocation', '{cut}');
    cut := coalesce(bool_of(given -> 'cut', '/cut'), false);
    IF k.state = 'revoked' AND NOT cut THEN
        RETURN before;
    END IF;
    IF k.state = 'active' THEN
        UPDATE api_key SET state = 'revoked', revoked_at = now() WHERE id = k.id;
    END IF;
    PERFORM audit(who, action, 'key', k.id::text, before, key_json(k.id));
    PERFORM log_keys(ARRAY[k.id], cut);
    RETURN key_json(k.id);
END $$;

-- A new secret with the rules of the old one, which lives on for a while under another name (unless the new one is given
-- one of its own). The new one lives as long as the old one was to live from its beginning, unless something else is said.
CREATE FUNCTION key_rotate(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    was    api_key := key_lock(object, expected);
    before json    := key_json(was.id);
    old    api_key := was;
    fresh  api_key := was;
    keep   bigint;
    tail   text;
BEGIN
    PERFORM members_are(given, '', 'rotation', '{hash,prefix,name,keep_for,keep_for_s,expires_at,expires_in}');
    IF was.state = 'revoked' THEN
        PERFORM refuse('QW410', '', format('the key %s was revoked for good', was.name));
    ELSIF was.expires_at <= now() THEN
        PERFORM refuse('QW410', '', format('the key %s has expired', was.name));
    END IF;
    keep := coalesce(seconds_of(given -> 'keep_for_s', '/keep_for_s', 0, 31622400),
                     seconds_of(given -> 'keep_for', '/keep_for', 0, 31622400), 86400);
    IF NOT given ? 'name' THEN
        tail := '.old-' || lower(coalesce(was.prefix, left(was.id::text, 8)));
        old.name := left(was.name, 128 - char_length(tail)) || tail;
    END IF;
    old.expires_at := least(was.expires_at, now() + make_interval(secs => keep));
    UPDATE api_key SET name = old.name, expires_at = old.expires_at,
                       state = CASE keep WHEN 0 THEN 'revoked' ELSE 'active' END, revoked_at = CASE keep WHEN 0 THEN now() END
        WHERE id = old.id;

    fresh.id := gen_random_uuid();
    fresh.expires_at := now() + (was.expires_at - was.created_at);
    fresh := key_read(fresh, given - '{hash,prefix,keep_for,keep_for_s}'::text[], '');
    fresh := key_secret(fresh, given, '');
    PERFORM key_insert(fresh);
    UPDATE api_key SET replaced_by = fresh.id WHERE id = old.id;
    PERFORM audit(who, action, 'key', old.id::text, before, key_json(old.id));
    PERFORM audit(who, action, 'key', fresh.id::text, NULL, key_json(fresh.id));
    PERFORM log_keys(ARRAY(SELECT id FROM published_key WHERE id = fresh.id) || old.id, false);
    RETURN (SELECT row_to_json(answer) FROM (
        SELECT s.*, (SELECT row_to_json(o) FROM (SELECT r.id, r.name, r.prefix, r.state, r.expires_at, r.version FROM shown_key AS r
                                                 WHERE r.id = old.id) AS o) AS replaces
        FROM shown_key AS s WHERE s.id = fresh.id) AS answer);
END $$;

-- All or nothing, as one version.
CREATE FUNCTION key_import(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    may_make_user bool;
    made          uuid[] := '{}';
    one           jsonb;
    place         int := 0;
BEGIN
    PERFORM members_are(given, '', 'import', '{keys,create_users}');
    may_make_user := coalesce(bool_of(given -> 'create_users', '/create_users'), false);
    IF NOT list_of(given -> 'keys', '/keys', 'keys') THEN
        PERFORM refuse('QW400', '/keys', 'is missing');
    END IF;
    FOR one IN SELECT * FROM jsonb_array_elements(given -> 'keys') LOOP
        PERFORM members_are(one, '/keys/' || place, 'key', '{user,team,name,hash,prefix,expires_at,expires_in,models,rpm,max_concurrent,'
                                                           'allow,delegate,note}');
        made := made || key_make(who, action, one, '/keys/' || place, may_make_user);
        place := place + 1;
    END LOOP;
    PERFORM log_keys(ARRAY(SELECT m.id FROM unnest(made) WITH ORDINALITY AS m (id, nr) JOIN published_key AS p ON p.id = m.id
                           ORDER BY m.nr), false);
    RETURN json_build_object('imported', place);
END $$;

-- Whitelist -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION whitelist_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    range cidr;
    words text;
BEGIN
    PERFORM members_are(given, '', 'range', '{cidr,note}');
    range := range_of(given -> 'cidr', '/cidr');
    words := note_of(given -> 'note', '/note');
    IF range IS NULL THEN
        PERFORM refuse('QW400', '/cidr', 'is missing');
    ELSIF EXISTS (SELECT FROM whitelist AS w WHERE w.cidr = range) THEN
        PERFORM refuse('QWDUP', '/cidr', format('%s is in the whitelist already', range));
    END IF;
    INSERT INTO whitelist (cidr, note) VALUES (range, words);
    PERFORM audit(who, action, 'whitelist', range::text, NULL, whitelist_json(range));
    PERFORM log_others('range', '{}', ARRAY[range::text]);
    RETURN whitelist_json(range);
END $$;

CREATE FUNCTION whitelist_lock(object text, expected int) RETURNS whitelist LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    w whitelist;
BEGIN
    SELECT * INTO w FROM whitelist WHERE cidr = range_or_null(object) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('range', object);
    END IF;
    PERFORM refuse_old(expected, w.version);
    RETURN w;
END $$;

CREATE FUNCTION whitelist_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    w      whitelist := whitelist_lock(object, expected);
    before json      := whitelist_json(w.cidr);
    words  text;
BEGIN
    PERFORM members_are(given, '', 'range', '{note}');
    words := note_of(given -> 'note', '/note');
    IF NOT given ? 'note' OR words = w.note THEN
        RETURN before;
    END IF;
    UPDATE whitelist SET note = words WHERE cidr = w.cidr;
    PERFORM audit(who, action, 'whitelist', w.cidr::text, before, whitelist_json(w.cidr));
    RETURN whitelist_json(w.cidr);
END $$;

CREATE FUNCTION whitelist_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    w      whitelist := whitelist_lock(object, expected);
    before json      := whitelist_json(w.cidr);
BEGIN
    DELETE FROM whitelist WHERE cidr = w.cidr;
    PERFORM audit(who, action, 'whitelist', w.cidr::text, before, NULL);
    PERFORM log_others('range', jsonb_build_object(w.cidr::text, '{}'::jsonb), ARRAY[w.cidr::text]);
    RETURN before;
END $$;

-- Models ----------------------------------------------------------------------------------------------------------------

CREATE FUNCTION model_read(m model, given jsonb) RETURNS model LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given ? 'alias_of' THEN
        m.alias_of := model_of(given -> 'alias_of', '/alias_of');
        IF m.alias_of = m.name THEN
            PERFORM refuse('QW400', '/alias_of', 'is the model itself');
        ELSIF EXISTS (SELECT FROM model AS o WHERE o.name = m.alias_of AND o.is_alias) THEN
            PERFORM refuse('QW400', '/alias_of', 'is an alias itself');
        ELSIF m.alias_of IS NOT NULL AND NOT EXISTS (SELECT FROM model AS o WHERE o.name = m.alias_of) THEN
            PERFORM refuse('QW400', '/alias_of', 'there is no such model');
        ELSIF m.alias_of IS NOT NULL AND EXISTS (SELECT FROM model AS o WHERE o.alias_of = m.name) THEN
            PERFORM refuse('QW400', '/alias_of', 'this model has aliases, so it cannot be one');
        END IF;
    END IF;
    IF given ? 'backend_model' THEN
        m.backend_model := model_of(given -> 'backend_model', '/backend_model');
    END IF;
    IF given ? 'num_ctx' THEN
        m.num_ctx := number_of(given -> 'num_ctx', '/num_ctx', 4, 100000000);
    END IF;
    IF given ? 'keep_alive' THEN
        m.keep_alive := matching(CASE WHEN jsonb_typeof(given -> 'keep_alive') = 'number' THEN to_jsonb(given ->> 'keep_alive')
                                      ELSE given -> 'keep_alive' END, '/keep_alive', 64,
                                 '^(-1|[0-9]{1,9}|-?([0-9]{1,9}(ns|us|ms|s|m|h)){1,6})$',
                                 'whole seconds (-1: for ever) or a duration such as 5m');
    END IF;
    IF given ? 'max_prompt_chars' THEN
        m.max_prompt_chars := number_of(given -> 'max_prompt_chars', '/max_prompt_chars', 0, 1000000000);
    END IF;
    IF given ? 'max_system_chars' THEN
        m.max_system_chars := number_of(given -> 'max_system_chars', '/max_system_chars', 0, 1000000000);
    END IF;
    IF given ? 'think' THEN
        m.think := bool_of(given -> 'think', '/think');
    END IF;
    IF given ? 'preload' OR m.preload IS NULL THEN
        m.preload := coalesce(bool_of(given -> 'preload', '/preload'), false);
    END IF;
    IF given ? 'note' OR m.note IS NULL THEN
        m.note := note_of(given -> 'note', '/note');
    END IF;
    IF m.alias_of IS NOT NULL THEN
        PERFORM refuse('QW400', '/' || field, 'is what the model says that this is an alias of: an alias cannot')
            FROM (VALUES ('backend_model', m.backend_model IS NOT NULL), ('num_ctx', m.num_ctx IS NOT NULL),
                         ('keep_alive', m.keep_alive IS NOT NULL), ('preload', m.preload)) AS said (field, is_said)
            WHERE is_said;
    END IF;
    RETURN m;
END $$;

-- A model and its aliases: what changes with it.
CREATE FUNCTION model_family(of_name text) RETURNS text[] LANGUAGE plpgsql STABLE SET search_path = qwen, pg_temp AS $$
BEGIN
    RETURN (SELECT array_agg(m.name::text) || of_name FROM model AS m WHERE m.alias_of = of_name);
END $$;

CREATE FUNCTION model_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    m model;
BEGIN
    PERFORM members_are(given, '', 'model', '{name,alias_of,backend_model,num_ctx,keep_alive,max_prompt_chars,max_system_chars,'
                                            'think,preload,note}');
    m.name := model_of(given -> 'name', '/name');
    IF m.name IS NULL THEN
        PERFORM refuse('QW400', '/name', 'is missing');
    ELSIF EXISTS (SELECT FROM model AS o WHERE o.name = m.name) THEN
        PERFORM refuse('QWDUP', '/name', format('there is a model %s already', m.name));
    END IF;
    m := model_read(m, given);
    INSERT INTO model (name, alias_of, backend_model, num_ctx, keep_alive, max_prompt_chars, max_system_chars, think, preload, note)
        VALUES (m.name, m.alias_of, m.backend_model, m.num_ctx, m.keep_alive, m.max_prompt_chars, m.max_system_chars, m.think, m.preload,
                m.note);
    PERFORM audit(who, action, 'model', m.name, NULL, model_json(m.name));
    PERFORM log_others('model', '{}', ARRAY[m.name::text]);
    RETURN model_json(m.name);
END $$;

CREATE FUNCTION model_lock(object text, expected int) RETURNS model LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    m model;
BEGIN
    SELECT * INTO m FROM model WHERE name = object FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('model', object);
    END IF;
    PERFORM refuse_old(expected, m.version);
    RETURN m;
END $$;

CREATE FUNCTION model_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    was    model  := model_lock(object, expected);
    before json   := model_json(was.name);
    family text[] := model_family(was.name);
    sent   jsonb  := others_now('model', family);
    m      model;
BEGIN
    PERFORM members_are(given, '', 'model', '{alias_of,backend_model,num_ctx,keep_alive,max_prompt_chars,max_system_chars,think,'
                                            'preload,note}');
    m := model_read(was, given);
    IF m IS NOT DISTINCT FROM was THEN
        RETURN before;
    END IF;
    UPDATE model SET alias_of = m.alias_of, backend_model = m.backend_model, num_ctx = m.num_ctx, keep_alive = m.keep_alive,
                     max_prompt_chars = m.max_prompt_chars, max_system_chars = m.max_system_chars, think = m.think, preload = m.preload,
                     note = m.note WHERE name = m.name;
    PERFORM audit(who, action, 'model', m.name, before, model_json(m.name));
    PERFORM log_others('model', sent, family);
    RETURN model_json(m.name);
END $$;

CREATE FUNCTION model_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    m      model := model_lock(object, expected);
    before json  := model_json(m.name);
    sent   jsonb := others_now('model', ARRAY[m.name::text]);
    other  text  := (SELECT min(o.name) FROM model AS o WHERE o.alias_of = m.name);
BEGIN
    IF other IS NOT NULL THEN
        PERFORM refuse('QWUSE', '', format('the model %s is an alias of it', other));
    END IF;
    DELETE FROM model WHERE name = m.name;
    PERFORM audit(who, action, 'model', m.name, before, NULL);
    PERFORM log_others('model', sent, ARRAY[m.name::text]);
    RETURN before;
END $$;

-- Backends --------------------------------------------------------------------------------------------------------------

CREATE FUNCTION backend_read(b backend, given jsonb) RETURNS backend LANGUAGE plpgsql STABLE
    SET search_path = qwen, pg_temp AS $$
BEGIN
    IF given ? 'url' OR b.url IS NULL THEN
        b.url := matching(given -> 'url', '/url', 512, '^https?://[^[:space:][:cntrl:]@]+$',
                          'an address such as http://10.0.0.5:11434, without a name or password in it');
        IF b.url IS NULL THEN
            PERFORM refuse('QW400', '/url', 'is missing');
        ELSIF b.url ~ '[^!-~]' THEN
            PERFORM refuse('QW400', '/url', 'must be an address such as http://10.0.0.5:11434, in ASCII');
        ELSIF EXISTS (SELECT FROM backend AS o WHERE o.url = b.url AND o.name <> b.name) THEN
            PERFORM refuse('QWDUP', '/url', 'another backend has this address');
        END IF;
    END IF;
    IF given ? 'kind' OR b.kind IS NULL THEN
        b.kind := coalesce(word_of(given -> 'kind', '/kind', '{ollama}'), 'ollama');
    END IF;
    IF given ? 'slots' OR b.slots IS NULL THEN
        b.slots := coalesce(number_of(given -> 'slots', '/slots', 0, 1000), 0);
    END IF;
    IF given ? 'models' THEN
        b.models := models_of(given -> 'models', '/models');
    END IF;
    IF given ? 'weight' OR b.weight IS NULL THEN
        b.weight := coalesce(number_of(given -> 'weight', '/weight', 0, 1000), 1);
    END IF;
    IF given ? 'drain' OR b.drain IS NULL THEN
        b.drain := coalesce(bool_of(given -> 'drain', '/drain'), false);
    END IF;
    IF given ? 'note' OR b.note IS NULL THEN
        b.note := note_of(given -> 'note', '/note');
    END IF;
    RETURN b;
END $$;

CREATE FUNCTION backend_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    b backend;
BEGIN
    PERFORM members_are(given, '', 'backend', '{name,url,kind,slots,models,weight,drain,note}');
    b.name := matching(given -> 'name', '/name', 64, '^[A-Za-z0-9._-]{1,64}$', '1 to 64 letters, digits, ".", "_" and "-"');
    IF b.name IS NULL THEN
        PERFORM refuse('QW400', '/name', 'is missing');
    ELSIF EXISTS (SELECT FROM backend AS o WHERE o.name = b.name) THEN
        PERFORM refuse('QWDUP', '/name', format('there is a backend %s already', b.name));
    END IF;
    b := backend_read(b, given);
    INSERT INTO backend (name, url, kind, slots, models, weight, drain, note)
        VALUES (b.name, b.url, b.kind, b.slots, b.models, b.weight, b.drain, b.note);
    PERFORM audit(who, action, 'backend', b.name, NULL, backend_json(b.name));
    PERFORM log_others('backend', '{}', ARRAY[b.name]);
    RETURN backend_json(b.name);
END $$;

CREATE FUNCTION backend_lock(object text, expected int) RETURNS backend LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    b backend;
BEGIN
    SELECT * INTO b FROM backend WHERE name = object FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('backend', object);
    END IF;
    PERFORM refuse_old(expected, b.version);
    RETURN b;
END $$;

CREATE FUNCTION backend_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    was    backend := backend_lock(object, expected);
    before json    := backend_json(was.name);
    sent   jsonb   := others_now('backend', ARRAY[was.name]);
    b      backend;
BEGIN
    PERFORM members_are(given, '', 'backend', '{url,kind,slots,models,weight,drain,note}');
    b := backend_read(was, given);
    IF b IS NOT DISTINCT FROM was THEN
        RETURN before;
    END IF;
    UPDATE backend SET url = b.url, kind = b.kind, slots = b.slots, models = b.models, weight = b.weight, drain = b.drain, note = b.note
        WHERE name = b.name;
    PERFORM audit(who, action, 'backend', b.name, before, backend_json(b.name));
    PERFORM log_others('backend', sent, ARRAY[b.name]);
    RETURN backend_json(b.name);
END $$;

CREATE FUNCTION backend_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    b      backend := backend_lock(object, expected);
    before json    := backend_json(b.name);
    sent   jsonb   := others_now('backend', ARRAY[b.name]);
BEGIN
    DELETE FROM backend WHERE name = b.name;
    PERFORM audit(who, action, 'backend', b.name, before, NULL);
    PERFORM log_others('backend', sent, ARRAY[b.name]);
    RETURN before;
END $$;

-- Settings --------------------------------------------------------------------------------------------------------------

-- What a setting may be the gateway knows; what it cannot take it reports.
CREATE FUNCTION setting_put(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    sent   jsonb := others_now('setting', ARRAY[object]);
    before json  := setting_json(object);
    s      setting;
BEGIN
    PERFORM members_are(given, '', 'setting', '{value}');
    IF object !~ '^[a-z][a-z0-9_.]{0,63}$' THEN
        PERFORM refuse('QW400', '', 'the name of a setting is 1 to 64 of a-z, 0-9, "_" and ".", and begins with a letter');
    ELSIF given -> 'value' IS NULL OR given -> 'value' = 'null' THEN
        PERFORM refuse('QW400', '/value', 'is missing');
    ELSIF char_length((given -> 'value')::text) > 65536 THEN
        PERFORM refuse('QW400', '/value', 'must not be longer than 65536 characters');
    END IF;
    SELECT * INTO s FROM setting WHERE name = object FOR UPDATE;
    IF FOUND THEN
        PERFORM refuse_old(expected, s.version);
        IF s.value = given -> 'value' THEN
            RETURN before;
        END IF;
        UPDATE setting SET value = given -> 'value' WHERE name = object;
    ELSIF expected IS NOT NULL THEN
        PERFORM refuse_missing('setting', object);
    ELSE
        INSERT INTO setting (name, value) VALUES (object, given -> 'value');
    END IF;
    PERFORM audit(who, action, 'setting', object, before, setting_json(object));
    PERFORM log_others('setting', sent, ARRAY[object]);
    RETURN setting_json(object);
END $$;

CREATE FUNCTION setting_delete(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    sent   jsonb := others_now('setting', ARRAY[object]);
    before json  := setting_json(object);
    s      setting;
BEGIN
    SELECT * INTO s FROM setting WHERE name = object FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('setting', object);
    END IF;
    PERFORM refuse_old(expected, s.version);
    DELETE FROM setting WHERE name = object;
    PERFORM audit(who, action, 'setting', object, before, NULL);
    PERFORM log_others('setting', sent, ARRAY[object]);
    RETURN before;
END $$;

-- Gateways --------------------------------------------------------------------------------------------------------------

-- A secret that lets a gateway in once, under this name. Of one that is there it is another secret, and the one before is
-- good no more; the gateway stays what it is until somebody uses it.
CREATE FUNCTION gateway_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    g      gateway;
    before json;
    lasts  bigint;
BEGIN
    PERFORM members_are(given, '', 'gateway', '{name,note,hash,expires_s,expires_in}');
    g.name := label_of(given -> 'name', '/name');
    g.enrol_hash := hash_of(given -> 'hash', '/hash');
    lasts := coalesce(seconds_of(given -> 'expires_s', '/expires_s', 60, 31622400),
                      seconds_of(given -> 'expires_in', '/expires_in', 60, 31622400), 86400);
    g.id := gateway_find(g.name);
    IF g.id IS NULL THEN
        g.id := gen_random_uuid();
        INSERT INTO gateway (id, name, note, enrol_hash, enrol_expires)
            VALUES (g.id, g.name, note_of(given -> 'note', '/note'), g.enrol_hash, now() + make_interval(secs => lasts));
    ELSE
        before := gateway_json(g.id);
        UPDATE gateway SET enrol_hash = g.enrol_hash, enrol_expires = now() + make_interval(secs => lasts),
                           note = CASE WHEN given ? 'note' THEN note_of(given -> 'note', '/note') ELSE note END
            WHERE id = g.id;
    END IF;
    PERFORM audit(who, action, 'gateway', g.id::text, before, gateway_json(g.id));
    RETURN gateway_json(g.id);
END $$;

CREATE FUNCTION gateway_lock(object text, expected int) RETURNS gateway LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    g gateway;
BEGIN
    SELECT * INTO g FROM gateway WHERE id = gateway_find(object) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('gateway', object);
    ELSIF g.removed_at IS NOT NULL THEN
        PERFORM refuse('QW410', '', format('the gateway %s was removed for good', g.name));
    END IF;
    PERFORM refuse_old(expected, g.version);
    RETURN g;
END $$;

CREATE FUNCTION gateway_update(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    g      gateway := gateway_lock(object, expected);
    before json    := gateway_json(g.id);
    words  text;
BEGIN
    PERFORM members_are(given, '', 'gateway', '{note}');
    words := note_of(given -> 'note', '/note');
    IF NOT given ? 'note' OR words = g.note THEN
        RETURN before;
    END IF;
    UPDATE gateway SET note = words WHERE id = g.id;
    PERFORM audit(who, action, 'gateway', g.id::text, before, gateway_json(g.id));
    RETURN gateway_json(g.id);
END $$;

CREATE FUNCTION gateway_remove(who jsonb, action text, object text, expected int) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    g      gateway := gateway_lock(object, expected);
    before json    := gateway_json(g.id);
BEGIN
    UPDATE gateway SET removed_at = now(), enrol_hash = NULL, enrol_expires = NULL WHERE id = g.id;
    PERFORM audit(who, action, 'gateway', g.id::text, before, gateway_json(g.id));
    RETURN gateway_json(g.id);
END $$;

-- Has a gateway forget what it holds and take all anew; `object` NULL: all of them. One that has not enrolled holds nothing.
-- Orders are numbered by the clock: after a restore none has the number of one that the gateway carried out before.
CREATE FUNCTION gateway_resync(who jsonb, action text, object text, expected int, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    one    uuid;
    own    uuid := CASE WHEN object IS NOT NULL THEN (gateway_lock(object, expected)).id END;
    before json;
    names  text[] := '{}';
BEGIN
    PERFORM members_are(given, '', 'request', '{}');
    FOR one IN SELECT g.id FROM gateway AS g
               WHERE g.removed_at IS NULL AND g.public_key IS NOT NULL AND (own IS NULL OR g.id = own) ORDER BY g.id FOR UPDATE
    LOOP
        before := gateway_json(one);
        UPDATE gateway SET resync_asked = greatest(resync_asked + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        WHERE id = one;
        PERFORM audit(who, action, 'gateway', one::text, before, gateway_json(one));
        names := names || (before ->> 'name');
    END LOOP;
    IF own IS NOT NULL THEN
        RETURN gateway_json(own);
    END IF;
    RETURN json_build_object('gateways', ARRAY(SELECT unnest(names) ORDER BY 1));
END $$;

-- Tokens ----------------------------------------------------------------------------------------------------------------

CREATE FUNCTION admin_token_create(who jsonb, action text, given jsonb) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    t     admin_token;
    lasts bigint;
BEGIN
    PERFORM members_are(given, '', 'token', '{name,role,hash,expires_s,expires_in}');
    t.id := gen_random_uuid();
    t.name := label_of(given -> 'name', '/name');
    t.role := word_of(given -> 'role', '/role', '{viewer,operator,billing,owner}');
    t.hash := hash_of(given -> 'hash', '/hash');
    lasts := coalesce(seconds_of(given -> 'expires_s', '/expires_s', 60, 316224000),
                      seconds_of(given -> 'expires_in', '/expires_in', 60, 316224000));
    IF t.role IS NULL THEN
        PERFORM refuse('QW400', '/role', 'is missing');
    ELSIF lasts IS NULL THEN
        PERFORM refuse('QW400', '/expires_in', 'is missing');
    ELSIF EXISTS (SELECT FROM admin_token AS o WHERE o.name = t.name AND o.revoked_at IS NULL) THEN
        PERFORM refuse('QWDUP', '/name', format('there is a token %s already; an expired one frees its name by being revoked', t.name));
    END IF;
    INSERT INTO admin_token (id, name, role, hash, expires_at)
        VALUES (t.id, t.name, t.role, t.hash, now() + make_interval(secs => lasts));
    PERFORM audit(who, action, 'admin_token', t.id::text, NULL, admin_token_json(t.id));
    RETURN admin_token_json(t.id);
END $$;

CREATE FUNCTION admin_token_revoke(who jsonb, action text, object text) RETURNS json LANGUAGE plpgsql
    SET search_path = qwen, pg_temp AS $$
DECLARE
    t      admin_token;
    before json;
BEGIN
    SELECT * INTO t FROM admin_token WHERE id = admin_token_find(object) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('token', object);
    END IF;
    before := admin_token_json(t.id);
    IF t.revoked_at IS NOT NULL THEN
        RETURN before;
    END IF;
    UPDATE admin_token SET revoked_at = now() WHERE id = t.id;
    PERFORM audit(who, action, 'admin_token', t.id::text, before, admin_token_json(t.id));
    RETURN admin_token_json(t.id);
END $$;

-- The one door for changes ----------------------------------------------------------------------------------------------

-- who: {"token_id", "actor", "address", "request_id", "idempotency_key", "request_hash", "epoch"}; all but the actor may be
-- null. expected NULL: whatever its version. An answer that was given to the same token for the same idempotency key within
-- the last day is given again, and nothing happens.
CREATE FUNCTION admin_change(who jsonb, action text, object text, expected int, given jsonb)
    RETURNS TABLE (body text, config_version bigint, is_replay bool) LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    token    uuid  := who ->> 'token_id';
    once     text  := who ->> 'idempotency_key';
    asked    bytea := decode(who ->> 'request_hash', 'hex');
    is_for   text  := CASE WHEN action LIKE 'gateway\_%' THEN 'gateway' WHEN action LIKE 'admin\_token\_%' THEN 'token' ELSE 'config' END;
    answered idempotency;
    was      bigint;
BEGIN
    given := coalesce(given, '{}');
    IF once IS NOT NULL THEN
        IF token IS NULL OR asked IS NULL OR once COLLATE "C" !~ '^[!-~]{1,255}$' THEN
            PERFORM refuse('QW400', '', 'an idempotency key is 1 to 255 printable characters, and needs a token');
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended(token || once, 4));
        SELECT * INTO answered FROM idempotency AS i WHERE i.token_id = token AND i.key = once AND i.at > now() - interval '1 day';
        IF FOUND AND answered.request_hash <> asked THEN
            PERFORM refuse('QW422', '', 'this idempotency key stood for another request');
        ELSIF FOUND THEN
            RETURN QUERY SELECT answered.body, h.version, true FROM config_head AS h;
            RETURN;
        END IF;
    END IF;
    IF who ->> 'epoch' IS NOT NULL THEN
        PERFORM FROM leader AS l WHERE l.epoch = (who ->> 'epoch')::bigint AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp()
            FOR SHARE;
        IF NOT FOUND THEN
            PERFORM refuse('QW503', '', 'another control plane leads now');
        END IF;
    END IF;
    IF is_for = 'config' THEN
        SELECT h.version INTO was FROM config_head AS h FOR UPDATE;
    END IF;

    body := CASE action
        WHEN 'team_create' THEN team_create(who, action, given)
        WHEN 'team_update' THEN team_update(who, action, object, expected, given)
        WHEN 'team_delete' THEN team_delete(who, action, object, expected)
        WHEN 'user_create' THEN user_create(who, action, given, '')
        WHEN 'user_update' THEN user_update(who, action, object, expected, given)
        WHEN 'user_delete' THEN user_delete(who, action, object, expected)
        WHEN 'key_create' THEN key_create(who, action, given)
        WHEN 'key_update' THEN key_update(who, action, object, expected, given)
        WHEN 'key_revoke' THEN key_revoke(who, action, object, expected, given)
        WHEN 'key_rotate' THEN key_rotate(who, action, object, expected, given)
        WHEN 'key_import' THEN key_import(who, action, given)
        WHEN 'whitelist_create' THEN whitelist_create(who, action, given)
        WHEN 'whitelist_update' THEN whitelist_update(who, action, object, expected, given)
        WHEN 'whitelist_delete' THEN whitelist_delete(who, action, object, expected)
        WHEN 'model_create' THEN model_create(who, action, given)
        WHEN 'model_update' THEN model_update(who, action, object, expected, given)
        WHEN 'model_delete' THEN model_delete(who, action, object, expected)
        WHEN 'backend_create' THEN backend_create(who, action, given)
        WHEN 'backend_update' THEN backend_update(who, action, object, expected, given)
        WHEN 'backend_delete' THEN backend_delete(who, action, object, expected)
        WHEN 'setting_put' THEN setting_put(who, action, object, expected, given)
        WHEN 'setting_delete' THEN setting_delete(who, action, object, expected)
        WHEN 'gateway_create' THEN gateway_create(who, action, given)
        WHEN 'gateway_enroll' THEN gateway_create(who, action, given)
        WHEN 'gateway_update' THEN gateway_update(who, action, object, expected, given)
        WHEN 'gateway_remove' THEN gateway_remove(who, action, object, expected)
        WHEN 'gateway_resync' THEN gateway_resync(who, action, object, expected, given)
        WHEN 'admin_token_create' THEN admin_token_create(who, action, given)
        WHEN 'admin_token_revoke' THEN admin_token_revoke(who, action, object)
    END::text;
    IF body IS NULL THEN
        RAISE EXCEPTION 'there is no action %', action USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF once IS NOT NULL THEN
        IF pg_try_advisory_xact_lock(hashtextextended('idempotency', 4)) THEN -- what is old goes, one at a time
            DELETE FROM idempotency AS i WHERE (i.token_id, i.key) IN (
                SELECT o.token_id, o.key FROM idempotency AS o WHERE o.at <= now() - interval '1 day' ORDER BY o.at LIMIT 10);
        END IF;
        DELETE FROM idempotency AS i WHERE i.token_id = token AND i.key = once;
        INSERT INTO idempotency (token_id, key, request_hash, status, body)
            VALUES (token, once, asked, CASE WHEN action LIKE '%\_create' THEN 201 ELSE 200 END, admin_change.body);
    END IF;
    config_version := (SELECT h.version FROM config_head AS h);
    is_replay := false;
    IF is_for <> 'config' OR config_version <> was THEN
        PERFORM pg_notify('qwen_change', is_for);
    END IF;
    RETURN NEXT;
END $$;

GRANT SELECT ON published_key, published_other, shown_team, shown_user, shown_key, shown_whitelist, shown_model, shown_backend,
                shown_setting, shown_gateway, shown_admin_token TO qwen_control;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA qwen TO qwen_control;
