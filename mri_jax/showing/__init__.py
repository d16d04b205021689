"""How results are shown: tables in three forms, figures, pages, and the word SIMULATED."""
