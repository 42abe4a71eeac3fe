"""From one scan to a cohort of thousands: every scan measured once, whatever stops in between.

`scans` says what is to be measured, `one` measures a scan, and its `record` tells whether it must
be done again; `engine` has many of them done by Dask's workers, which `tally` counts; `tables`
makes the cohort's tables of the records. What is done stands in files alone, so that any process
may die at any time.
"""
