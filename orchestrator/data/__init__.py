"""Reading of preference data (one module per data set), partial pairs (TLT, SST) and rejects."""
