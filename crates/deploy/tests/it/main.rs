//! Tests of the planner from outside.
