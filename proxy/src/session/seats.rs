//! How many sessions there are, altogether and of each user, and the bounds of both.
//!
//! It must not know what a session is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sessions that have begun.
#[derive(Debug)]
pub(crate) struct Seats {
    seats_max: usize,
    /// The most of one user; `None` for no bound of its own.
    per_user_max: Option<usize>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only kept when there is a bound for it.
    of_user: HashMap<Box<[u8]>, usize>,
}

/// A session's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    user: Box<[u8]>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    ForAll,
    ForUser,
}

impl Seats {
    pub(crate) fn new(seats_max: usize, per_user_max: Option<usize>) -> Arc<Self> {
        Arc::new(Seats {
            seats_max,
            per_user_max,
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is a whole one, whatever panics elsewhere.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a session of this user.
    pub(crate) fn take(self: &Arc<Self>, user: &[u8]) -> Result<Seat, Full> {
        let mut taken = self.taken();
        if taken.all >= self.seats_max {
            return Err(Full::ForAll);
        }
        if let Some(per_user_max) = self.per_user_max {
            let of_user = taken.of_user.entry(user.into()).or_default();
            if *of_user >= per_user_max {
                return Err(Full::ForUser);
            }
            *of_user += 1;
        }
        taken.all += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            user: user.into(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(of_user) = taken.of_user.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.of_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_for_all_and_for_each_user_and_given_back() {
        let seats = Seats::new(3, Some(2));
        let first = seats.take(b"ann").unwrap();
        let _second = seats.take(b"ann").unwrap();
        assert_eq!(seats.take(b"ann").unwrap_err(), Full::ForUser);
        let third = seats.take(b"bob").unwrap();
        assert_eq!(seats.take(b"eve").unwrap_err(), Full::ForAll);
        drop(third);
        assert!(!seats.taken().of_user.contains_key(&b"bob"[..]));
        assert_eq!(seats.take(b"ann").unwrap_err(), Full::ForUser);
        drop(first);
        assert!(seats.take(b"ann").is_ok());
    }

    #[test]
    fn users_without_a_bound_of_their_own_are_not_remembered() {
        let seats = Seats::new(2, None);
        let _seats = [seats.take(b"ann").unwrap(), seats.take(b"ann").unwrap()];
        assert!(seats.taken().of_user.is_empty());
        assert_eq!(seats.take(b"ann").unwrap_err(), Full::ForAll);
    }
}
