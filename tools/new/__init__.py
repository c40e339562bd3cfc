"""`make new`: a service of another name out of this one's files, with or without accounts and events.

`parts` says what is left out, `cut` leaves it out, `names` puts the name in its forms, `__main__` is the command.
"""
