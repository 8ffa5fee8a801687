-- A star with snowflaked geography and one of everything that a proof may not trust.
CREATE TYPE channel AS ENUM ('web', 'store', 'phone');

CREATE DOMAIN business_day AS date;

CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE region (
    id integer PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE nation (
    id integer PRIMARY KEY,
    name varchar(30) NOT NULL,
    code char(3),
    region_id integer NOT NULL REFERENCES region (id)
);

CREATE TABLE customer (
    id integer PRIMARY KEY,
    name text NOT NULL,
    nation_id integer NOT NULL REFERENCES nation (id),
    segment varchar(20),
    signed_up date,
    credit integer,
    reach numeric
);

CREATE TABLE product (
    id integer PRIMARY KEY,
    sku varchar(20) NOT NULL UNIQUE,
    category text,
    color text,
    list_price numeric(10,2)
);

CREATE TABLE calendar (
    day date PRIMARY KEY,
    month date NOT NULL,
    year integer NOT NULL,
    is_holiday boolean
);

-- No key: a code may occur twice.
CREATE TABLE promotion (
    code text,
    title text
);

-- Unique only among some of its rows.
CREATE TABLE store (
    id integer,
    name text,
    city text
);

CREATE UNIQUE INDEX store_open ON store (id) WHERE city IS NOT NULL;

-- Unique, but only checked at commit.
CREATE TABLE campaign (
    id integer,
    name text,
    UNIQUE (id) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE employee (
    id bigint PRIMARY KEY,
    name text,
    team text
);

-- Keys whose equal values may print differently, or that other types' values may match twice.
CREATE TABLE tariff (
    rate numeric PRIMARY KEY,
    label text
);

CREATE TABLE label (
    code varchar(5) PRIMARY KEY,
    title text
);

CREATE TABLE plant (
    country integer,
    number integer,
    name text,
    PRIMARY KEY (country, number)
);

CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customer (id),
    billed_to integer REFERENCES customer (id),
    product_id integer REFERENCES product (id),
    ordered_on date NOT NULL REFERENCES calendar (day),
    shipped_on date REFERENCES calendar (day),
    ordered_at timestamp NOT NULL,
    created_at timestamptz NOT NULL,
    shipped_at timestamp,
    store_id integer,
    promotion_code text,
    campaign_id integer NOT NULL,
    employee_id integer NOT NULL REFERENCES employee (id),
    rate numeric NOT NULL REFERENCES tariff (rate),
    country integer NOT NULL,
    plant_number integer NOT NULL,
    channel channel,
    code char(3),
    quantity integer,
    discount smallint NOT NULL,
    units bigint,
    amount numeric(12,2),
    cost numeric(12,2) NOT NULL,
    price numeric,
    weight double precision,
    returned boolean,
    note text,
    loose_name text COLLATE loose,
    c_name text COLLATE "C",
    business_day business_day,
    took interval,
    FOREIGN KEY (country, plant_number) REFERENCES plant (country, number)
);

-- Rows that break these keys may be there already, or in the middle of a transaction.
CREATE TABLE legacy (
    id integer,
    customer_id integer NOT NULL,
    product_id integer NOT NULL,
    amount integer
);

ALTER TABLE legacy ADD CONSTRAINT legacy_customer FOREIGN KEY (customer_id) REFERENCES customer (id) NOT VALID;

ALTER TABLE legacy ADD CONSTRAINT legacy_product FOREIGN KEY (product_id) REFERENCES product (id) DEFERRABLE INITIALLY DEFERRED;

-- Constraints of a parent do not reach its children.
CREATE TABLE event (
    id integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customer (id),
    kind text
);

CREATE TABLE event_child (
    extra text
) INHERITS (event);

CREATE TABLE secret (
    id integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customer (id),
    amount integer
);

ALTER TABLE secret ENABLE ROW LEVEL SECURITY;

CREATE TABLE ruled (
    id integer PRIMARY KEY,
    amount integer
);

CREATE RULE ruled_update AS ON UPDATE TO ruled DO INSTEAD NOTHING;

CREATE VIEW order_view AS SELECT customer_id, amount FROM public.orders;

-- A star as a view, and what may be shown of it.
CREATE VIEW star AS SELECT o.id, o.ordered_on, o.quantity, o.cost, o.amount, c.year AS y, cu.segment, 100 / o.units AS part FROM public.orders o JOIN public.calendar c ON o.ordered_on = c.day LEFT JOIN public.customer cu ON o.customer_id = cu.id;

CREATE VIEW recent AS SELECT star.quantity, star.cost, star.y AS year FROM public.star WHERE star.y >= 2024;

CREATE VIEW by_quantity AS SELECT star.quantity, sum(star.cost) AS cost, count(*) AS n FROM public.star GROUP BY star.quantity;

CREATE VIEW guarded WITH (security_barrier = true) AS SELECT o.quantity, o.cost FROM public.orders o WHERE o.quantity > 1;

CREATE VIEW monthly AS SELECT date_trunc('month', o.ordered_at) AS month, o.cost FROM public.orders o WHERE o.quantity IN (1, 2, 3) AND o.channel IN ('web', 'store');

CREATE VIEW secrets AS SELECT s.customer_id, s.amount FROM public.secret s;

CREATE MATERIALIZED VIEW stored AS SELECT o.quantity, o.cost FROM public.orders o;

-- Names that must be quoted.
CREATE TABLE "Odd ""Table""" (
    "Group" text,
    "select" integer,
    "Amount €" numeric(10,2)
);

CREATE SCHEMA other;

CREATE TABLE other.orders (
    customer_id integer,
    amount numeric(12,2)
);
