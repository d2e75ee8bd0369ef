"""What each contender answers. One contender, one file, one function for each path of urls.py."""
