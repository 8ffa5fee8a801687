-- People and projects: chains of keys, roles, names that are no keys, columns that may be NULL.
CREATE TABLE site (
    id integer PRIMARY KEY,
    city text,
    country char(2) NOT NULL
);

CREATE TABLE department (
    id integer PRIMARY KEY,
    name varchar(20) NOT NULL,
    site_id integer NOT NULL REFERENCES site (id),
    budget numeric(12,2)
);

CREATE TABLE employee (
    id integer PRIMARY KEY,
    name varchar(30) NOT NULL,
    department_id integer NOT NULL REFERENCES department (id),
    mentor_id integer REFERENCES employee (id),
    grade integer NOT NULL,
    salary numeric(10,2) NOT NULL,
    commission integer,
    hired_on date NOT NULL,
    left_on date
);

-- Several may have one name, and nothing enforces the employee.
CREATE TABLE dependent (
    employee_id integer,
    name varchar(30),
    born_on date
);

CREATE TABLE project (
    id integer PRIMARY KEY,
    department_id integer REFERENCES department (id),
    title text NOT NULL
);

CREATE TABLE booking (
    id bigint PRIMARY KEY,
    employee_id integer NOT NULL REFERENCES employee (id),
    project_id integer REFERENCES project (id),
    booked_at timestamp NOT NULL,
    logged_at timestamptz NOT NULL,
    hours numeric(6,2) NOT NULL,
    rate integer,
    billable boolean
);
