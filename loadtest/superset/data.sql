-- Rows for schema.sql: as many order lines as the setting corpus.lines says, the same at every run.
-- Every nullable column is NULL now and then, orders begin on both sides of midnight and on days on which clocks change.
SET search_path = ssb;
SET TimeZone = 'UTC';

-- A number below `bound` that looks random, for column `salt` of row `row`.
CREATE FUNCTION pick(line bigint, salt int, bound bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
    AS 'SELECT (hashint8extended(line, salt) & 4611686018427387903) % bound';

CREATE FUNCTION one_of(line bigint, salt int, choices text[]) RETURNS text IMMUTABLE LANGUAGE sql
    AS 'SELECT choices[1 + pick(line, salt, cardinality(choices))]';

CREATE FUNCTION datekey(day timestamp) RETURNS int IMMUTABLE LANGUAGE sql
    AS 'SELECT (extract(year FROM day) * 10000 + extract(month FROM day) * 100 + extract(day FROM day))::int';

INSERT INTO region
SELECT position - 1, name FROM unnest('{AFRICA,AMERICA,ASIA,EUROPE,MIDDLE EAST}'::text[]) WITH ORDINALITY AS r (name, position);

INSERT INTO nation
SELECT row_number() OVER () - 1, name, iso, region
FROM (VALUES
    (0, 'ALGERIA', 'DZ'), (0, 'ETHIOPIA', 'ET'), (0, 'KENYA', 'KE'), (0, 'MOROCCO', 'MA'), (0, 'MOZAMBIQUE', 'MZ'),
    (1, 'ARGENTINA', 'AR'), (1, 'BRAZIL', 'BR'), (1, 'CANADA', 'CA'), (1, 'PERU', 'PE'), (1, 'UNITED STATES', 'US'),
    (2, 'CHINA', 'CN'), (2, 'INDIA', 'IN'), (2, 'INDONESIA', 'ID'), (2, 'JAPAN', NULL), (2, 'VIETNAM', 'VN'),
    (3, 'FRANCE', 'FR'), (3, 'GERMANY', 'DE'), (3, 'ROMANIA', 'RO'), (3, 'RUSSIA', 'RU'), (3, 'UNITED KINGDOM', 'GB'),
    (4, 'EGYPT', 'EG'), (4, 'IRAN', 'IR'), (4, 'IRAQ', 'IQ'), (4, 'JORDAN', 'JO'), (4, 'SAUDI ARABIA', 'SA')
) AS n (region, name, iso);

INSERT INTO city
SELECT n_nationkey * 10 + digit, rpad(left(n_name, 9), 9) || digit, n_nationkey,
       nullif(pick(n_nationkey * 10 + digit, 1, 1200), 7) / 10.0 - 60, pick(n_nationkey * 10 + digit, 2, 3600) / 10.0 - 180
FROM nation, generate_series(0, 9) AS digit;

INSERT INTO date_dim
SELECT datekey(day), day, to_char(day, 'FMDay'), to_char(day, 'FMMonth'), extract(year FROM day), datekey(day) / 100,
       to_char(day, 'MonYYYY'), 1 + extract(dow FROM day), extract(day FROM day), extract(doy FROM day), extract(month FROM day),
       extract(week FROM day), extract(quarter FROM day),
       (ARRAY['Winter', 'Winter', 'Spring', 'Spring', 'Spring', 'Summer', 'Summer', 'Summer', 'Fall', 'Fall', 'Christmas', 'Christmas'])
           [extract(month FROM day)::int],
       datekey(day) % 10000 IN (101, 501, 1225), extract(isodow FROM day) <= 5
FROM generate_series(timestamp '2020-01-01', '2026-12-31', '1 day') AS day;

INSERT INTO customer
SELECT c, 'Customer#' || lpad(c::text, 9, '0'), 'street ' || pick(c, 1, 100000),
       CASE WHEN pick(c, 2, 40) > 0 THEN pick(c, 3, 250) END, 10 + pick(c, 4, 25) || '-' || 100 + pick(c, 5, 900),
       CASE WHEN pick(c, 6, 30) > 0 THEN one_of(c, 7, '{AUTOMOBILE,BUILDING,FURNITURE,HOUSEHOLD,MACHINERY}') END,
       date '2018-01-01' + pick(c, 8, 2500)::int
FROM generate_series(1, 600) AS c;

INSERT INTO supplier
SELECT s, 'Supplier#' || lpad(s::text, 9, '0'), 'street ' || pick(s, 1, 100000),
       CASE WHEN pick(s, 2, 30) > 0 THEN pick(s, 3, 250) END, 10 + pick(s, 4, 25) || '-' || 100 + pick(s, 5, 900)
FROM generate_series(1, 120) AS s;

INSERT INTO part
SELECT p, one_of(p, 1, '{lace,misty,royal,smoke,steel}') || ' ' || one_of(p, 2, '{almond,azure,blush,coral,cream}'),
       maker, category, category || 1 + pick(p, 5, 40),
       CASE WHEN pick(p, 6, 25) > 0 THEN one_of(p, 7, '{red,green,blue,yellow,purple,O''Neil grey,50% black,BLACK}') END,
       one_of(p, 8, '{STANDARD,SMALL,MEDIUM,LARGE,PROMO}') || ' ' || one_of(p, 9, '{PLATED,POLISHED,BRUSHED}'), 1 + pick(p, 10, 50),
       one_of(p, 11, '{SM,MED,LG,JUMBO}') || ' ' || one_of(p, 12, '{CASE,BOX,BAG,JAR}')
FROM generate_series(1, 500) AS p,
     LATERAL (SELECT 'MFGR#' || 1 + pick(p, 3, 5)) AS m (maker),
     LATERAL (SELECT maker || 1 + pick(p, 4, 5)) AS g (category);

-- Four lines an order, which share its customer, time and priority.
INSERT INTO lineorder
SELECT ordered.o, line, 1 + pick(o, 1, 600),
       CASE WHEN pick(l, 2, 60) > 0 THEN 1 + pick(l, 3, 500) END, CASE WHEN pick(l, 4, 60) > 0 THEN 1 + pick(l, 5, 120) END,
       datekey(at), CASE WHEN pick(l, 6, 20) > 0 THEN datekey(least(at + (30 + pick(l, 7, 60)) * interval '1 day', '2026-12-31')) END,
       at, at + pick(l, 8, 7200) * interval '1 second',
       CASE WHEN pick(o, 9, 40) > 0 THEN one_of(o, 10, '{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECI,5-LOW}') END, pick(l, 11, 2),
       CASE WHEN pick(l, 12, 50) > 0 THEN one_of(l, 13, '{AIR,REG AIR,RAIL,SHIP,TRUCK,MAIL,FOB}') END,
       CASE WHEN pick(l, 14, 80) > 0 THEN 1 + pick(l, 15, 50) END, price, (price * 3)::bigint, discount,
       CASE WHEN pick(l, 18, 70) > 0 THEN round(price * (100 - discount) / 100, 2) END, (price * 0.6)::int, pick(l, 19, 9),
       CASE WHEN pick(l, 20, 30) > 0 THEN pick(l, 21, 1000000) / 1000.0 END,
       CASE WHEN pick(l, 22, 50) > 0 THEN pick(l, 23, 12) = 0 END, CASE WHEN pick(l, 24, 10) = 0 THEN 'note ' || pick(l, 25, 1000) END,
       jsonb_build_object('channel', one_of(l, 26, '{web,store,phone}'), 'promo', pick(l, 27, 4) = 0)
FROM generate_series(0, current_setting('corpus.lines')::int / 4 - 1) AS ordered (o),
     generate_series(1, 4) AS line,
     LATERAL (SELECT o::bigint * 4 + line) AS numbered (l),
     LATERAL (
         -- Every 50th order begins at midnight, every 51st in an hour that is skipped or comes twice somewhere.
         SELECT CASE
             WHEN o % 50 = 0 THEN date_trunc('day', t)
             WHEN o % 51 = 0 THEN (ARRAY['2024-03-10 02:30', '2024-11-03 01:30', '2024-03-31 01:15', '2024-10-27 00:45'])[1 + o / 51 % 4]::timestamp
             ELSE t
         END
         FROM (SELECT timestamp '2020-01-01' + pick(o, 28, 2557 * 86400000::bigint) * interval '1 millisecond') AS moment (t)
     ) AS begun (at),
     LATERAL (SELECT (90000 + pick(l, 16, 5500000)) / 100.0, pick(l, 17, 11)::numeric) AS sold (price, discount);

CREATE INDEX ON lineorder (lo_order_ts);
ANALYZE;
