//! Every section and key of the configuration file, with its default and what it means.
//!
//! The one list that unknown keys, missing keys and wrong types are judged by; the example
//! configuration is tested against it. What a value must be like beyond its type is not said here.

/// The TOML type that a value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number.
    Count,
}

/// What happens when a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The file is refused; an example of a value, written as in TOML.
    Refused(&'static str),
    /// This value is taken; written as in TOML.
    Means(&'static str),
}

/// A key that the file may have.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// What leaving it out means.
    pub absent: Absence,
    /// What it is for, a sentence.
    pub about: &'static str,
}

/// A table that the file may have.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Whether there may be any number of them, written `[[name]]`.
    pub repeated: bool,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Key {
    /// A line of a file that sets the key: to its default, or to some value where it has none.
    pub fn example(&self) -> String {
        let (Absence::Means(value) | Absence::Refused(value)) = self.absent;
        format!("{} = {value}", self.name)
    }
}

impl Section {
    /// The section's header as it is written in a file.
    pub fn header(&self) -> String {
        match self.repeated {
            true => format!("[[{}]]", self.name),
            false => format!("[{}]", self.name),
        }
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The section of this name.
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

const fn text(name: &'static str, absent: Absence, about: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Text,
        absent,
        about,
    }
}

const fn count(name: &'static str, absent: Absence, about: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Count,
        absent,
        about,
    }
}

use Absence::{Means, Refused};

/// Every section, in the order of the example configuration.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "listen",
        repeated: false,
        keys: &[
            text(
                "address",
                Means("\"127.0.0.1:6432\""),
                "Where clients connect, as to PostgreSQL: an IP address and a port.",
            ),
            text(
                "proxy_protocol",
                Means("\"off\""),
                "\"on\" when a load balancer puts a header of the PROXY protocol (version 1 or 2) before every connection.",
            ),
            text(
                "tls",
                Means("\"allow\""),
                "With a certificate: \"allow\" takes clients with and without TLS, \"require\" those with TLS only.",
            ),
            text(
                "tls_certificate",
                Means("\"\""),
                "The certificate that clients see, a PEM file; none: requests for TLS are declined.",
            ),
            text(
                "tls_key",
                Means("\"\""),
                "The certificate's private key, a PEM file.",
            ),
            text(
                "tls_client_ca",
                Means("\"\""),
                "Certificates that vouch for clients, a PEM file; clients without such a certificate are refused.",
            ),
        ],
    },
    Section {
        name: "upstream",
        repeated: false,
        keys: &[text(
            "url",
            Refused("\"postgresql://pgstar@127.0.0.1:5432/warehouse\""),
            "The PostgreSQL server behind pgstar: clients' sessions go to its host and port, \
             pgstar's own connections use its user and database as well. sslmode and sslrootcert hold for all of them.",
        )],
    },
    Section {
        name: "auth",
        repeated: false,
        keys: &[
            text(
                "method",
                Means("\"relay\""),
                "Who checks passwords: \"relay\" leaves it to PostgreSQL, whatever the method; with \"scram\" pgstar \
                 checks SCRAM-SHA-256 itself, which lets sessions share backends.",
            ),
            text(
                "query",
                Means("\"SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1\""),
                "What tells the verifier of a user's password, for \"scram\"; pgstar's own user must be able to ask it.",
            ),
            text(
                "users",
                Means("\"\""),
                "A file of users and verifiers to ask instead, with lines such as \"ann\" \"SCRAM-SHA-256$…\".",
            ),
            text(
                "certificates",
                Means("\"ignore\""),
                "Whether the name in a client's certificate must be the user's: \"ignore\", \"match\", or \"login\" where it is enough to log in.",
            ),
        ],
    },
    Section {
        name: "pool",
        repeated: false,
        keys: &[
            count(
                "backends",
                Means("50"),
                "The most backends that wait for sessions whose password pgstar checks; 0 keeps none.",
            ),
            count(
                "per_user",
                Means("50"),
                "The most of them that wait for one user.",
            ),
            text("idle_timeout", Means("\"5m\""), "How long a backend waits."),
            text(
                "max_age",
                Means("\"1h\""),
                "How long a backend lives, from when it was opened.",
            ),
        ],
    },
    Section {
        name: "admin",
        repeated: false,
        keys: &[text(
            "address",
            Means("\"127.0.0.1:9632\""),
            "Where /metrics, /healthz and /readyz are served over HTTP; \"off\" serves none.",
        )],
    },
    Section {
        name: "cache",
        repeated: false,
        keys: &[
            text(
                "memory",
                Means("\"512MiB\""),
                "The most memory that stored answers may take; \"0B\" stores none.",
            ),
            text(
                "max_answer",
                Means("\"16MiB\""),
                "The largest answer worth storing, at most the whole memory.",
            ),
            count(
                "followed_tables",
                Means("64"),
                "The most tables, beside those of rollups, whose changes are followed so that answers to repeated \
                 aggregations can be stored; 0 follows none. Only tables that pgstar's user owns and that have a \
                 primary key or another replica identity.",
            ),
        ],
    },
    Section {
        name: "freshness",
        repeated: false,
        keys: &[
            text(
                "default",
                Means("\"strict\""),
                "How old an answer may be when a session has not set pgstar.freshness: \
                 \"strict\", a bound such as \"5s\", or \"any\".",
            ),
            text(
                "deadline",
                Means("\"500ms\""),
                "How long a statement may wait for the proof that its answer is fresh; \
                 then the base tables answer.",
            ),
            text(
                "audit",
                Means("\"10m\""),
                "How often one range of one rollup, at random, is computed again from the base tables and compared; a \
                 rollup that differs answers no more and is built again. \"off\" never does.",
            ),
        ],
    },
    Section {
        name: "limits",
        repeated: false,
        keys: &[
            count(
                "connections",
                Means("1000"),
                "The most client sessions at a time.",
            ),
            count(
                "connections_per_user",
                Means("0"),
                "The most sessions of one user at a time; 0 sets no bound of its own.",
            ),
            text(
                "statement",
                Means("\"1MiB\""),
                "The longest statement that is considered for a rollup or the cache; \
                 longer ones pass through.",
            ),
            text(
                "login_timeout",
                Means("\"30s\""),
                "How long a client may take from connecting until it is logged in.",
            ),
            text(
                "idle_timeout",
                Means("\"off\""),
                "How long a session may be idle outside a transaction until it is ended, at the latest a quarter of \
                 that later; \"off\" lets it be.",
            ),
            text(
                "drain_timeout",
                Means("\"30s\""),
                "How long sessions may finish their transactions after SIGTERM; \"0s\" ends them at once.",
            ),
        ],
    },
    Section {
        name: "rollup",
        repeated: true,
        keys: &[
            text(
                "name",
                Refused("\"revenue_by_month\""),
                "The rollup's name in commands, metrics and EXPLAIN (PGSTAR), and of its table.",
            ),
            text(
                "query",
                Refused("\"SELECT … GROUP BY …\""),
                "The SELECT whose rows the rollup keeps.",
            ),
            text(
                "refresh",
                Means("\"off\""),
                "How often it is built again while the changes of its tables cannot be followed, such as \"10m\"; \
                 \"off\" leaves it as it was built.",
            ),
            text(
                "float",
                Means("\"refuse\""),
                "\"approximate\" lets it keep and answer sums, averages, variances and extremes of floating-point numbers, \
                 whose last digits may differ from PostgreSQL's; \"refuse\" does not.",
            ),
        ],
    },
];
