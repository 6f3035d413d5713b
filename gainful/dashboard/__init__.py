"""The page an engineer keeps open: what is in service, how well it does, what is being tried, what was spent.

``data`` reads a store and returns one picture of a task; ``feed`` keeps such pictures fresh for whoever looks;
``app`` serves page, pictures and events; ``live`` serves them for a store file without the proxy.  Nothing here
writes a store, decides anything, or fetches anything from outside.
"""
