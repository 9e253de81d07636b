"""What all trainings of a sweep share, from the user's two files to plain arrays.

In this order: ``checked_data`` reads the files, ``preparing`` has the LLM embed the tools and
tokenise the texts, ``shared_inputs`` is the outcome, ``cache`` keeps it on the disk, and
``find_or_prepare`` is what everybody calls who needs it.
"""
