"""Questions to a model about one picture each, answered in JSON that is checked before a stage sees it.

prompt        what a stage asks, and what an answer is
answer_model  what an answer may be: pydantic models, which give the schema too
reading       the one object in the text of an answer
models        what is known of each model: picture tokens, effort, shutdown
model_choice  which model is asked on the day of a run
prices        what an answer costs, by the price list of genai-prices
images        pictures as small as the model sees them
rate_limit    requests and tokens per minute, as the server's headers tell them
congestion    fewer requests at once when answers come late
options       the flags of an asking stage
budget        --max-cost: what may still be spent, and what a request can cost at most
flex          --flex: a tier at half the price, which has room or has none
estimate      --estimate: what a run will cost
request       the body of a request, for the Responses and the Chat Completions API
wire          the server's answers, whatever API spoke, as one form
server        its address and key, and the openai package
client        one call of a server
failures      what a failed call means
store         every answer that was paid for, on disk before it counts
map_rows      `ask_rows`: a stage's rows asked in parallel, on a budget
batch_api     the same through the Batch API, at half the price, in steps
batch_records what the Batch API was asked and what became of it
batch_wait    --batch wait: all of these steps until nothing is pending
recaps        the two files of another try at a caption
"""
