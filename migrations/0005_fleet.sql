-- What the running control plane needs to lead and to look after gateways. Each of these is one statement of its own, and
-- what only the leader may write names the epoch it leads in: QW503 when that is over.

-- So that there is always a version that a gateway can be told.
UPDATE config_head SET version = version + 1;

-- A gateway that hears nothing for so long refuses its callers; NULL: it never does.
ALTER TABLE gateway ADD COLUMN max_staleness_s bigint CHECK (max_staleness_s BETWEEN 1 AND 4294967295);
GRANT UPDATE (max_staleness_s) ON gateway TO qwen_control;

-- Until when one whose lease had run out may have told gateways things from memory, which nobody wrote down.
ALTER TABLE leader ADD COLUMN uncertain_until timestamptz NOT NULL DEFAULT '-infinity';
GRANT UPDATE (uncertain_until) ON leader TO qwen_control;

CREATE FUNCTION milliseconds(at timestamptz) RETURNS bigint LANGUAGE sql STABLE SET search_path = qwen, pg_temp AS $$
    SELECT CASE WHEN isfinite(at) THEN (extract(epoch FROM at) * 1000)::bigint ELSE 0 END
$$;

-- Prolongs the lease of `me`, or takes the lead where nobody has it; and says who leads. Where the one before did not give
-- it back, he may go on for `hold` without the database.
CREATE FUNCTION leader_hold(me text, own_epoch bigint, lease_ms bigint, hold_ms bigint)
    RETURNS TABLE (holder text, epoch bigint, is_mine bool, left_ms bigint, uncertain_until_ms bigint)
    LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    UPDATE leader AS l SET expires_at = clock_timestamp() + make_interval(secs => lease_ms / 1000.0)
    WHERE l.holder = me AND l.epoch = own_epoch AND l.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        UPDATE leader AS l
        SET holder = me, epoch = l.epoch + 1, expires_at = clock_timestamp() + make_interval(secs => lease_ms / 1000.0),
            uncertain_until = CASE WHEN l.holder IS NULL OR l.holder = me THEN l.uncertain_until
                                   ELSE greatest(l.uncertain_until, l.expires_at + make_interval(secs => hold_ms / 1000.0)) END
        WHERE l.holder IS NULL OR l.expires_at <= clock_timestamp();
    END IF;
    RETURN QUERY SELECT l.holder, l.epoch, l.holder IS NOT DISTINCT FROM me,
                        greatest(0, milliseconds(l.expires_at) - milliseconds(clock_timestamp())), milliseconds(l.uncertain_until)
                 FROM leader AS l;
END $$;

-- Gives it back, if it is still his.
CREATE FUNCTION leader_resign(me text, own_epoch bigint) RETURNS bool LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    UPDATE leader AS l SET holder = NULL, expires_at = clock_timestamp() WHERE l.holder = me AND l.epoch = own_epoch;
    IF FOUND THEN
        NOTIFY qwen_leader;
    END IF;
    RETURN FOUND;
END $$;

-- Whoever is not the leader writes nothing; and who takes the lead waits until what is written here is done.
CREATE FUNCTION leader_must_be(own_epoch bigint) RETURNS void LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
BEGIN
    PERFORM FROM leader AS l WHERE l.epoch = own_epoch AND l.holder IS NOT NULL AND l.expires_at > clock_timestamp() FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % does not lead any more', own_epoch USING ERRCODE = 'QW503';
    END IF;
END $$;

-- A gateway has proven that it holds this key, and its secret was right: false when it was used, or is over, meanwhile.
CREATE FUNCTION gateway_enrolled(own_epoch bigint, own_name text, secret_hash bytea, key bytea) RETURNS bool
    LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    own uuid;
BEGIN
    PERFORM leader_must_be(own_epoch);
    UPDATE gateway AS g SET public_key = key, enrol_hash = NULL, enrol_expires = NULL
    WHERE g.name = own_name AND g.removed_at IS NULL AND g.enrol_hash = secret_hash AND g.enrol_expires > now()
    RETURNING g.id INTO own;
    IF own IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO audit_log (actor, action, noun, object_id, after)
    VALUES ('gateway ' || own_name, 'enrolled', 'gateway', own::text, jsonb_build_object('name', own_name, 'enrolled', true));
    NOTIFY qwen_change, 'gateway';
    RETURN true;
END $$;

-- What gateways said of themselves, many at once: {"id", "ago_ms": since it was heard last, "desired", "applied", "error",
-- "software", "features", "address", "max_staleness_s", "resync_done"}; what is not said stays, null is NULL.
CREATE FUNCTION gateways_report(own_epoch bigint, said jsonb) RETURNS bigint LANGUAGE plpgsql SET search_path = qwen, pg_temp AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM leader_must_be(own_epoch);
    UPDATE gateway AS g
    SET last_seen = CASE WHEN s.body ? 'ago_ms' THEN clock_timestamp() - make_interval(secs => (s.body ->> 'ago_ms')::bigint / 1000.0)
                         ELSE g.last_seen END,
        desired_version = coalesce((s.body ->> 'desired')::bigint, g.desired_version),
        applied_version = coalesce((s.body ->> 'applied')::bigint, g.applied_version),
        apply_error = CASE WHEN s.body ? 'error' THEN left(s.body ->> 'error', 4000) ELSE g.apply_error END,
        software = CASE WHEN s.body ? 'software' THEN left(s.body ->> 'software', 200) ELSE g.software END,
        features = CASE WHEN s.body ? 'features' THEN ARRAY(SELECT jsonb_array_elements_text(s.body -> 'features') LIMIT 100)
                        ELSE g.features END,
        address = CASE WHEN s.body ? 'address' THEN (s.body ->> 'address')::inet ELSE g.address END,
        max_staleness_s = CASE WHEN s.body ? 'max_staleness_s' THEN (s.body ->> 'max_staleness_s')::bigint ELSE g.max_staleness_s END,
        resync_done = least(g.resync_asked, greatest(g.resync_done, coalesce((s.body ->> 'resync_done')::bigint, 0)))
    FROM jsonb_array_elements(said) AS s (body)
    WHERE g.id = (s.body ->> 'id')::uuid AND g.removed_at IS NULL;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count;
END $$;

GRANT EXECUTE ON FUNCTION milliseconds, leader_hold, leader_resign, leader_must_be, gateway_enrolled, gateways_report
    TO qwen_control;
