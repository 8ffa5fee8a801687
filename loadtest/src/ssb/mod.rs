//! The Star Schema Benchmark: O'Neil, O'Neil, Chen, "Star Schema Benchmark", revision 3 (June 2009).
//!
//! A [`Scale`] and a seed fix every byte of the five tables. Rows are written by [`Generator`] as
//! COPY text, handed on in order by [`ChunkStream`], and stored by [`load`]; [`QUERIES`] are the
//! thirteen questions asked of them. Nothing here knows how a query is answered.

mod calendar;
mod chunks;
mod copy_text;
mod dimensions;
mod generator;
mod lineorder;
mod load;
mod queries;
mod random;
mod scale;
mod words;

pub use chunks::{Chunk, ChunkStream, GeneratorStopped};
pub use copy_text::CopyText;
pub use generator::{Generator, Table, UnknownTable};
pub use load::{LoadError, Loaded, Progress, load};
pub use queries::{QUERIES, Query};
pub use scale::{Cardinalities, InvalidScale, Scale, cardinalities};
