"""The paper's ablations (Table 2, Fig. 16) again, at small scale."""
