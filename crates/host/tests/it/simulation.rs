//! The host killed at random moments of random requests, on a seeded clock (D16).
