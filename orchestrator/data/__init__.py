"""Preference data on its way in: one file a data set, then partial pairs (TLT, SST) and rejects."""
