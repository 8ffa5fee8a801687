-- What sensors measured, in floating-point numbers of both sizes.
CREATE TABLE sensor (
    id integer PRIMARY KEY,
    site text NOT NULL
);

CREATE TABLE reading (
    id bigint PRIMARY KEY,
    sensor_id integer NOT NULL REFERENCES sensor (id),
    taken_at timestamp NOT NULL,
    kind text NOT NULL,
    weight double precision NOT NULL,
    height double precision,
    grams real NOT NULL,
    level real,
    amount numeric(12,2) NOT NULL
);
