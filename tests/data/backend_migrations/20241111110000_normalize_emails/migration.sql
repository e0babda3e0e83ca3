CREATE FUNCTION "normalize_email"(address TEXT) RETURNS TEXT
    LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
    SELECT lower(trim(address));
END;

CREATE FUNCTION "contact_channel_normalize"() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- A semicolon; and a quote ' inside a body end nothing.
    NEW."value" := "normalize_email"(NEW."value");
    RETURN NEW;
END;
$body$;

CREATE TRIGGER "ContactChannel_normalize" BEFORE INSERT OR UPDATE ON "ContactChannel"
    FOR EACH ROW EXECUTE FUNCTION "contact_channel_normalize"();
