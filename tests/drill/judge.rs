//! The judge and the independent checker, on recoveries that are right and on ones that are wrong in one way each.
