-- A user's own functions and operators with the names of built-in ones.
CREATE TABLE sale (
    id integer PRIMARY KEY,
    kind text,
    sold_at timestamp NOT NULL,
    amount integer
);

CREATE FUNCTION upper(value integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'SHADOW' $$;

CREATE FUNCTION loud(value text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT $1 $$;

CREATE FUNCTION text_is(left_side text, right_side integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;

CREATE OPERATOR = (FUNCTION = text_is, LEFTARG = text, RIGHTARG = integer);
