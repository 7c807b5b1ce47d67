"""A linear tool classifier: hashed n-grams, a versioned head of arrays, training with scikit-learn."""
